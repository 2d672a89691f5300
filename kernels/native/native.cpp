// The entry points: which instruction set, which threads.
#include "native.h"

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace {

const InstructionSet* const known[] = {
#if defined(__x86_64__)
    &avx512_bf16,
    &avx512,
    &avx2,
#endif
    &baseline,
};
constexpr int count_known = sizeof known / sizeof *known;

bool runs_here(const InstructionSet* set) {
#if defined(__x86_64__)
    if (set == &avx512_bf16 || set == &avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               (set == &avx512 || __builtin_cpu_supports("avx512bf16"));
    if (set == &avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return true;
}

// Rows of a few pixels waste wide vectors, and adding their lanes up costs more than reading them.
const InstructionSet& suited(int instruction_set, long columns) {
#if defined(__x86_64__)
    if (columns < 128 && (known[instruction_set] == &avx512_bf16 || known[instruction_set] == &avx512)) return avx2;
#else
    (void)columns;
#endif
    return *known[instruction_set];
}

// Parts of some work, taken in turn by whichever thread is free; what a part computes does not depend on who does it.
template <class Work>
struct Queue {
    const Work& work;
    void (*part)(const Work&, long);
    long count;
    std::atomic<long> next{0};

    static void drain(void* self) {
        Queue& queue = *static_cast<Queue*>(self);
        for (long part; (part = queue.next.fetch_add(1, std::memory_order_relaxed)) < queue.count;)
            queue.part(queue.work, part);
    }
};

// GOMP_parallel of the OpenMP runtime that torch has loaded: its threads are there already, and spin for a while after
// each of its own loops, so threads of ours would have to fight them for the cores. Null where there is none.
typedef void (*Team)(void (*)(void*), void*, unsigned threads, unsigned flags);

template <class Work>
void run(const Work& work, void (*part)(const Work&, long), long parts, long threads, Team team) {
    Queue<Work> queue{work, part, parts};
    if (threads > queue.count) threads = queue.count;
    if (threads <= 1) return Queue<Work>::drain(&queue);
    if (team) return team(Queue<Work>::drain, &queue, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> others;
    try {
        for (long thread = 1; thread < threads; ++thread) others.emplace_back(Queue<Work>::drain, &queue);
    } catch (const std::system_error&) {
        // Those that could be started, and this one, do the work.
    }
    Queue<Work>::drain(&queue);
    for (std::thread& other : others) other.join();
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Name of the i-th instruction set, best first; null behind the last, empty if this machine lacks it.
EXPORTED const char* iir_fast_instruction_set(int i) {
    return i >= count_known ? nullptr : runs_here(known[i]) ? known[i]->name : "";
}

// Both return 0 if there is no kernel for that number of vectors, else 1.
EXPORTED int iir_fast_sums(const Sums* work, int instruction_set, long threads, Team team) {
    SumsPart part = suited(instruction_set, work->columns).sums(*work);
    if (part) run(*work, part, work->samples * work->shares, threads, team);
    return part != nullptr;
}

EXPORTED int iir_fast_products(const Products* work, int instruction_set, long threads, Team team) {
    ProductsPart part = suited(instruction_set, work->columns).products(*work);
    if (part) run(*work, part, work->samples * work->shares, threads, team);
    return part != nullptr;
}

EXPORTED void iir_fast_regulate(const Regulation* work, int backward, int instruction_set, long threads, Team team) {
    const InstructionSet& set = suited(instruction_set, work->pixels);
    run(*work, backward ? set.regulate_backward : set.regulate_forward, work->samples, threads, team);
}

EXPORTED void iir_fast_similarity(const Similarity* work, int backward, int instruction_set, long threads, Team team) {
    const InstructionSet& set = suited(instruction_set, work->channels);
    const long parts = (work->rows + work->rows_of_a_part - 1) / work->rows_of_a_part;
    run(*work, set.similarity_lengths, parts, threads, team);
    run(*work, backward ? set.similarity_backward : set.similarity_forward, parts, threads, team);
}
