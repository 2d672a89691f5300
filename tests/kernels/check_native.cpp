// Drives the compiled host kernels over many shapes, in memory that ends where they must stop, and compares them with
// plain loops in double precision. Built with sanitizers by test_native.py; prints what differs.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "native.h"

typedef void (*Team)(void (*)(void*), void*, unsigned, unsigned);
extern "C" const char* iir_fast_instruction_set(int);
extern "C" int iir_fast_sums(const Sums*, int, long, Team);
extern "C" int iir_fast_products(const Products*, int, long, Team);
extern "C" void iir_fast_regulate(const Regulation*, int, int, long, Team);
extern "C" void iir_fast_similarity(const Similarity*, int, int, long, Team);

static std::mt19937 generator(0);
static int faults = 0;

// Memory of exactly that size, so that the sanitizer sees one element too many.
template <class Element>
struct Memory {
    std::unique_ptr<Element[]> data;
    long count;
    explicit Memory(long count) : data(new Element[count]), count(count) {}
    Element& operator[](long i) { return data[i]; }
    Element* get() { return count ? data.get() : nullptr; }
};

static float number(float value) { return value; }
static float number(Bfloat16 bits) {
    uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}
static void set(float& target, float value) { target = value; }
static void set(Bfloat16& target, float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    target = Bfloat16(word >> 16);
}

template <class Element>
static Memory<Element> random(long count) {
    std::normal_distribution<float> normal;
    Memory<Element> memory(count);
    for (long i = 0; i < count; ++i) set(memory[i], normal(generator));
    return memory;
}

static void expect(const char* what, int level, double found, double exact, double tolerance) {
    if (!(std::fabs(found - exact) <= tolerance)) {
        ++faults;
        std::printf("%s, %s: %g is not %g\n", iir_fast_instruction_set(level), what, found, exact);
    }
}

template <class Element>
static void check_sums(int level, long dtype, long rows, long columns, long dots, long adds, long squares, long shares) {
    const long samples = 3, more_dots = squares && dots, more_adds = squares && !dots;
    Memory<Element> maps = random<Element>(samples * rows * columns);
    Memory<float> vectors = random<float>(samples * dots * columns), weights = random<float>(samples * adds * rows);
    Memory<float> found_dots(samples * (dots + more_dots) * rows);
    Memory<float> found_adds(samples * shares * (adds + more_adds) * columns);
    Sums work = {maps.get(),    rows * columns, dtype,           samples,          rows, columns, vectors.get(), dots * columns,
                 weights.get(), adds * rows,    found_dots.get(), found_adds.get(), dots, adds,    squares,       shares};
    if (!iir_fast_sums(&work, level, 3, nullptr)) expect("sums are refused", level, 1, 0, 0);
    for (long sample = 0; sample < samples; ++sample) {
        const auto map = [&](long row, long column) { return double(number(maps[(sample * rows + row) * columns + column])); };
        for (long dot = 0; dot < dots + more_dots; ++dot)
            for (long row = 0; row < rows; ++row) {
                double exact = 0;
                for (long column = 0; column < columns; ++column)
                    exact += map(row, column) * (dot < dots ? vectors[(sample * dots + dot) * columns + column] : map(row, column));
                expect("dot", level, found_dots[(sample * (dots + more_dots) + dot) * rows + row], exact, 1e-5 * (columns + 4));
            }
        for (long add = 0; add < adds + more_adds; ++add)
            for (long column = 0; column < columns; ++column) {
                double exact = 0, found = 0;
                for (long row = 0; row < rows; ++row)
                    exact += map(row, column) * (add < adds ? weights[(sample * adds + add) * rows + row] : map(row, column));
                for (long share = 0; share < shares; ++share)
                    found += found_adds[((sample * shares + share) * (adds + more_adds) + add) * columns + column];
                expect("add", level, found, exact, 1e-5 * (rows + 4));
            }
    }
}

template <class Element>
static void check_products(int level, long dtype, long rows, long columns, long terms, bool down, long shares) {
    const long samples = 2;
    Memory<Element> target(samples * rows * columns);
    Memory<float> down_rows = random<float>(samples * terms * rows), along_rows = random<float>(samples * terms * columns);
    Memory<float> added = random<float>(samples * (down ? rows : columns));
    Products work = {target.get(),     dtype,           samples,          rows,
                     columns,          down_rows.get(), terms * rows,     along_rows.get(),
                     terms * columns,  down ? added.get() : nullptr,      down ? nullptr : added.get(),
                     terms,            shares};
    if (!iir_fast_products(&work, level, 2, nullptr)) expect("products are refused", level, 1, 0, 0);
    for (long sample = 0; sample < samples; ++sample)
        for (long row = 0; row < rows; ++row)
            for (long column = 0; column < columns; ++column) {
                double exact = down ? added[sample * rows + row] : added[sample * columns + column];
                for (long term = 0; term < terms; ++term)
                    exact += double(down_rows[(sample * terms + term) * rows + row]) *
                             along_rows[(sample * terms + term) * columns + column];
                const double tolerance = dtype == BFLOAT16 ? 4e-3 * (std::fabs(exact) + 1e-3) : 1e-5;
                expect("product", level, number(target[(sample * rows + row) * columns + column]), exact, tolerance);
            }
}

enum Threshold { MEAN, LEARNED, GIVEN };

// The results are held against the reference by the operators' own tests; here it is only watched what they touch.
static void run_regulate(int level, long pixels, Threshold threshold) {
    const long samples = 2;
    Memory<float> cams = random<float>(samples * 2 * pixels), cuts = random<float>(samples * 2);
    Memory<float> grads = random<float>(samples * 2 * pixels), few = random<float>(samples * 2);
    Memory<float> terms(samples * 2), masks(samples * 2 * pixels), maps(samples * 2 * pixels), thresholds(samples * 2);
    Memory<float> grad_cams(samples * 2 * pixels), grad_cuts(samples * 2);
    const float *given = threshold == GIVEN ? cuts.get() : nullptr, *offsets = threshold == LEARNED ? cuts.get() : nullptr;
    Regulation work = {cams.get(),  given,      offsets,        0.1f, 1e-6f, 1e-12f, 1e-4f, samples, pixels,
                       terms.get(), masks.get(), maps.get(), thresholds.get(), few.get(), grads.get(), grads.get(),
                       few.get(),   grad_cams.get(), grad_cuts.get()};
    for (int backward : {0, 1}) iir_fast_regulate(&work, backward, level, 2, nullptr);
    for (long i = 0; i < samples * 2 * pixels; ++i) {
        expect("mask in [0,1]", level, masks[i], 0.5, 0.5);
        expect("finite gradient", level, grad_cams[i] - grad_cams[i], 0, 0);
    }
}

static void run_similarity(int level, long rows, long channels, long group) {
    Memory<float> foreground = random<float>(rows * channels), background = random<float>(rows * channels);
    Memory<long> order(rows), first(rows), last(rows);
    for (long i = 0; i < rows; ++i) {
        order[i] = rows - 1 - i, first[i] = i / group * group;
        last[i] = first[i] + group < rows ? first[i] + group : rows;
    }
    const long together = 4, parts = (rows + together - 1) / together;
    Memory<float> lengths(rows * 3), grad_foreground(rows * channels), grad_background(rows * channels);
    Memory<double> totals(parts);
    Similarity work = {foreground.get(), background.get(), order.get(),   first.get(),  last.get(), rows, channels, together,
                       1e-12f,           lengths.get(),    totals.get(),  0.5f,         grad_foreground.get(),
                       grad_background.get()};
    for (int backward : {0, 1}) iir_fast_similarity(&work, backward, level, 2, nullptr);
    for (long i = 0; i < parts; ++i) expect("finite total", level, totals[i] - totals[i], 0, 0);
    for (long i = 0; i < rows * channels; ++i) expect("finite gradient", level, grad_foreground[i] - grad_foreground[i], 0, 0);
}

template <class Element>
static void check_all(int level, long dtype) {
    const long shapes[][2] = {{1, 1}, {3, 2}, {1, 40}, {7, 15}, {9, 16}, {13, 17}, {40, 1}, {21, 49}, {6, 196}};
    const long vectors[][2] = {{1, 0}, {2, 0}, {3, 0}, {4, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 1}, {1, 2}, {2, 1}};
    for (const auto& [rows, columns] : shapes)
        for (long shares : {1L, 2L, 5L}) {
            if (shares > rows) continue;
            for (const auto& [dots, adds] : vectors)
                for (long squares : {0L, 1L}) check_sums<Element>(level, dtype, rows, columns, dots, adds, squares, shares);
            for (long terms : {1L, 2L, 3L, 4L})
                for (bool down : {false, true}) check_products<Element>(level, dtype, rows, columns, terms, down, shares);
        }
}

int main() {
    int checked = 0;
    for (int level = 0; const char* name = iir_fast_instruction_set(level); ++level) {
        if (!*name) continue;
        ++checked;
        check_all<float>(level, FLOAT32);
        check_all<Bfloat16>(level, BFLOAT16);
        for (long pixels : {1, 7, 16, 45, 49, 196, 300})
            for (Threshold threshold : {MEAN, LEARNED, GIVEN})
                run_regulate(level, pixels, threshold);
        for (long channels : {1, 5, 16, 33, 130})
            for (long group : {1, 3, 9}) run_similarity(level, 10, channels, group);
    }
    std::printf("%d instruction sets checked, %d faults\n", checked, faults);
    return faults != 0 || checked == 0;
}
