// The kernels for one instruction set, compiled by the file that includes this with NAME and LANES defined.
//
// No standard header: an inline function of theirs, compiled here for instructions that a machine lacks, could be the
// one that the linker keeps for everybody.
#include "native.h"

#define INLINE static inline __attribute__((always_inline))
// For loops of a constant number of turns, before the compiler decides what it keeps in registers.
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

extern "C" void* calloc(unsigned long, unsigned long);
extern "C" void free(void*);
extern "C" float expf(float);
extern "C" float log1pf(float);

namespace {

// Zeroed memory for one part of the work.
struct Scratch {
    float* data;
    explicit Scratch(long count) : data((float*)calloc(count + 1, sizeof(float))) {
        if (!data) __builtin_trap();
    }
    Scratch(const Scratch&) = delete;
    ~Scratch() { free(data); }
};

#include "walk.h"

#include "regulate.h"
#include "similarity.h"

template <class Element>
SumsPart sums_of(const Sums& work) {
#define SUMS(DOTS, ADDS)                                                  \
    if (work.number_of_dots == DOTS && work.number_of_adds == ADDS) \
    return work.squares ? read_part<Element, DOTS, ADDS, true> : read_part<Element, DOTS, ADDS, false>
    SUMS(1, 0);
    SUMS(2, 0);
    SUMS(3, 0);
    SUMS(4, 0);
    SUMS(0, 1);
    SUMS(0, 2);
    SUMS(0, 3);
    SUMS(0, 4);
    SUMS(1, 1);
    SUMS(1, 2);
    SUMS(2, 1);
    return nullptr;
}

template <class Element>
ProductsPart products_of(const Products& work) {
    switch (work.number_of_terms) {
        case 1: return write_part<Element, 1>;
        case 2: return write_part<Element, 2>;
        case 3: return write_part<Element, 3>;
        case 4: return write_part<Element, 4>;
    }
    return nullptr;
}

SumsPart sums(const Sums& work) { return work.dtype == BFLOAT16 ? sums_of<Bfloat16>(work) : sums_of<float>(work); }

ProductsPart products(const Products& work) {
    return work.dtype == BFLOAT16 ? products_of<Bfloat16>(work) : products_of<float>(work);
}

}  // namespace

#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)
extern const InstructionSet NAME = {TEXT_OF(NAME),
                                    sums,
                                    products,
                                    regulate_forward,
                                    regulate_backward,
                                    similarity_lengths,
                                    similarity_forward,
                                    similarity_backward};
