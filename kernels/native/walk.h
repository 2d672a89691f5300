// One walk over a matrix [rows, columns] of every sample: sums while it reads, or a product while it writes.
//
// Included once for each instruction set, inside a namespace of its own, with LANES floats to a vector. A matrix is
// what lies in memory: rows are channels and columns are pixels in NCHW, the other way round in channels_last. So
// "for every row" and "for every column" stand for channels and pixels in either order, and two loops serve all
// operators.

typedef float Floats __attribute__((vector_size(4 * LANES), may_alias));
typedef unsigned Words __attribute__((vector_size(4 * LANES), may_alias));
typedef unsigned short Halves __attribute__((vector_size(2 * LANES), may_alias));

INLINE Floats splat(float value) { return value - Floats{}; }

INLINE Floats load(const float* source) {
    Floats values;
    __builtin_memcpy(&values, source, sizeof values);
    return values;
}

INLINE Floats load(const Bfloat16* source) {
    Halves halves;
    __builtin_memcpy(&halves, source, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

INLINE void store(float* target, Floats values) { __builtin_memcpy(target, &values, sizeof values); }

// To the nearest, ties to even; a NaN stays one.
INLINE void store(Bfloat16* target, Floats values) {
#if defined(ROUNDS_TO_BFLOAT16)
    // One instruction, which takes subnormal numbers for zero: where there is one, all go the long way.
    constexpr int SUBNORMAL = 0x20;
    if (__builtin_expect(!__builtin_ia32_fpclassps512_mask(values, SUBNORMAL, (unsigned short)-1), 1)) {
        const auto halves = __builtin_ia32_cvtneps2bf16_v16sf(values);
        __builtin_memcpy(target, &halves, sizeof halves);
        return;
    }
#endif
    Words bits = (Words)values;
    Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    Words is_nan = (Words)(values != values);
    rounded = (rounded & ~is_nan) | (0x7fc0u & is_nan);
    Halves halves = __builtin_convertvector(rounded, Halves);
    __builtin_memcpy(target, &halves, sizeof halves);
}

// The first `count` elements; zero behind them. Touches no memory behind them.
template <class Element>
INLINE Floats load_some(const Element* source, long count) {
    Element padded[LANES] = {};
    __builtin_memcpy(padded, source, count * sizeof(Element));
    return load(padded);
}

template <class Element>
INLINE void store_some(Element* target, Floats values, long count) {
    Element padded[LANES];
    store(padded, values);
    __builtin_memcpy(target, padded, count * sizeof(Element));
}

// Halves are added to halves, down to one element.
template <int COUNT>
INLINE float sum(const float* values) {
    if constexpr (COUNT == 1) {
        return *values;
    } else {
        typedef float Half __attribute__((vector_size(2 * COUNT), may_alias));
        Half low, high;
        __builtin_memcpy(&low, values, sizeof low);
        __builtin_memcpy(&high, values + COUNT / 2, sizeof high);
        low += high;
        float both[COUNT / 2];
        __builtin_memcpy(both, &low, sizeof low);
        return sum<COUNT / 2>(both);
    }
}

INLINE float sum(Floats values) {
    float lanes[LANES];
    store(lanes, values);
    return sum<LANES>(lanes);
}

INLINE long padded(long columns) { return (columns + LANES - 1) / LANES * LANES; }

// All ones in the first `count` lanes.
INLINE Words first_lanes(long count) {
    Words lanes = {};
    for (long lane = 0; lane < count; ++lane) lanes[lane] = ~0u;
    return lanes;
}

// ROWS neighbouring rows: their products with DOTS vectors, finished, and their share of ADDS weighted sums of rows.
// STEPS vectors of a row at a time, each with sums of its own, so that no addition waits for the one before.
// ROOM: a whole vector can be read where a row ends, because more of the sample follows.
template <class Element, int ROWS, int STEPS, int DOTS, int ADDS, bool SQUARES, bool ROOM>
INLINE void read_rows(const Element* source, long columns, Words last_lanes, const float* vectors, const float* weights,
                      long all_rows, float* dots, float* adds) {
    constexpr bool SQUARE_DOT = SQUARES && DOTS, SQUARE_ADD = SQUARES && !DOTS;
    constexpr int ALL_DOTS = DOTS + SQUARE_DOT, ALL_ADDS = ADDS + SQUARE_ADD;
    const long width = padded(columns), whole = columns / LANES * LANES;
    Floats products[ALL_DOTS + 1][ROWS][STEPS] = {};
    Floats weight[ADDS + 1][ROWS];
    UNROLLED for (int add = 0; add < ADDS; ++add)
        UNROLLED for (int row = 0; row < ROWS; ++row) weight[add][row] = splat(weights[add * all_rows + row]);

#define MEET(STEP, COLUMN, VALUE)                                                                            \
    {                                                                                                        \
        Floats values[ROWS];                                                                                 \
        UNROLLED for (int row = 0; row < ROWS; ++row) values[row] = VALUE;                                   \
        UNROLLED for (int dot = 0; dot < ALL_DOTS; ++dot) {                                                  \
            const Floats vector = dot < DOTS ? load(vectors + dot * width + (COLUMN)) : Floats{};            \
            UNROLLED for (int row = 0; row < ROWS; ++row) products[dot][row][STEP] +=                        \
                (dot < DOTS ? vector : values[row]) * values[row];                                           \
        }                                                                                                    \
        UNROLLED for (int add = 0; add < ALL_ADDS; ++add) {                                                  \
            Floats total = load(adds + add * width + (COLUMN));                                              \
            UNROLLED for (int row = 0; row < ROWS; ++row) total +=                                           \
                (add < ADDS ? weight[add][row] : values[row]) * values[row];                                 \
            store(adds + add * width + (COLUMN), total);                                                     \
        }                                                                                                    \
    }

    long column = 0;
    for (; column + STEPS * LANES <= columns; column += STEPS * LANES)
        UNROLLED for (int step = 0; step < STEPS; ++step) {
            const long here = column + step * LANES;
            // The rows that come next, in the order of their addresses: memory likes one stream better than several.
            UNROLLED for (int row = 0; row < ROWS; ++row)
                __builtin_prefetch(source + (columns + here) * ROWS + row * LANES);
            MEET(step, here, load(source + row * columns + here))
        }
    if (STEPS > 1)
        for (; column < whole; column += LANES) MEET(0, column, load(source + row * columns + column))
    if (whole < columns)
        MEET(0, whole, ROOM ? (Floats)((Words)load(source + row * columns + whole) & last_lanes)
                            : load_some(source + row * columns + whole, columns - whole))
#undef MEET

    UNROLLED for (int dot = 0; dot < ALL_DOTS; ++dot)
        UNROLLED for (int row = 0; row < ROWS; ++row) {
            Floats total = products[dot][row][0];
            UNROLLED for (int step = 1; step < STEPS; ++step) total += products[dot][row][step];
            dots[dot * all_rows + row] = sum(total);
        }
}

// A number that is known when a lambda that takes it is compiled.
template <auto VALUE>
struct Constant {
    constexpr operator decltype(VALUE)() const { return VALUE; }
};

// See `Sums` in native.h; `part` is one share of one sample's rows.
template <class Element, int DOTS, int ADDS, bool SQUARES>
void read_part(const Sums& work, long part) {
    const long rows = work.rows, columns = work.columns, width = padded(columns);
    const long sample = part / work.shares, share = part % work.shares;
    const long first = rows * share / work.shares, end = rows * (share + 1) / work.shares;
    constexpr int squares_beside_dots = SQUARES && DOTS ? 1 : 0;
    constexpr int squares_beside_adds = SQUARES && !DOTS ? 1 : 0;
    const Element* source = (const Element*)work.maps + sample * work.sample_stride;
    float* dots = work.dots + sample * (DOTS + squares_beside_dots) * rows;
    Scratch vectors(DOTS * width), adds((ADDS + squares_beside_adds) * width);
    for (int dot = 0; dot < DOTS; ++dot)
        __builtin_memcpy(vectors.data + dot * width, work.vectors + sample * work.vectors_stride + dot * columns,
                         columns * sizeof(float));
    const float* weights = work.weights + sample * work.weights_stride;
    const Words last_lanes = first_lanes(columns % LANES);
    long row = first;
    const auto walk = [&](auto together, auto steps, auto room) __attribute__((always_inline)) {
        constexpr int ROWS = together, STEPS = steps;
        read_rows<Element, ROWS, STEPS, DOTS, ADDS, SQUARES, room>(source + row * columns, columns, last_lanes,
                                                                   vectors.data, weights + row, rows, dots + row,
                                                                   adds.data);
        row += ROWS;
    };
    // Several rows at a time save loads and stores of what they meet; long ones are as many streams from memory, which
    // pays if they meet much.
    constexpr long SHORT = 1024 / sizeof(Element);
    if (columns <= SHORT || ADDS > 2)
        while (row + 4 <= end && (rows - row - 4) * columns >= LANES)
            walk(Constant<4>(), Constant<1>(), Constant<true>());
    while (row < end && (rows - row - 1) * columns >= LANES) walk(Constant<1>(), Constant<4>(), Constant<true>());
    while (row < end) walk(Constant<1>(), Constant<4>(), Constant<false>());
    float* target = work.adds + part * (ADDS + squares_beside_adds) * columns;
    for (int add = 0; add < ADDS + squares_beside_adds; ++add)
        __builtin_memcpy(target + add * columns, adds.data + add * width, columns * sizeof(float));
}

// See `Products` in native.h.
template <class Element, int TERMS>
void write_part(const Products& work, long part) {
    const long rows = work.rows, columns = work.columns, width = padded(columns);
    const long sample = part / work.shares, share = part % work.shares;
    const long first = rows * share / work.shares, end = rows * (share + 1) / work.shares;
    Scratch along_rows((TERMS + 1) * width);
    for (int term = 0; term < TERMS; ++term)
        __builtin_memcpy(along_rows.data + term * width,
                         work.along_rows + sample * work.along_rows_stride + term * columns, columns * sizeof(float));
    if (work.added_along_rows)
        __builtin_memcpy(along_rows.data + TERMS * width, work.added_along_rows + sample * columns,
                         columns * sizeof(float));
    for (long row = first; row < end; ++row) {
        Element* target = (Element*)work.target + (sample * rows + row) * columns;
        Floats factor[TERMS + 1];
        for (int term = 0; term < TERMS; ++term)
            factor[term] = splat(work.down_rows[sample * work.down_rows_stride + term * rows + row]);
        const Floats added = splat(work.added_down_rows ? work.added_down_rows[sample * rows + row] : 0);
        const auto value = [&](long column) __attribute__((always_inline)) {
            Floats total = added + load(along_rows.data + TERMS * width + column);
            for (int term = 0; term < TERMS; ++term)
                total += factor[term] * load(along_rows.data + term * width + column);
            return total;
        };
        const long whole = columns / LANES * LANES;
        for (long column = 0; column < whole; column += LANES) store(target + column, value(column));
        // What is written behind this row of the share is written again with the next.
        if (whole < columns && (end - row - 1) * columns >= LANES)
            store(target + whole, value(whole));
        else if (whole < columns)
            store_some(target + whole, value(whole), columns - whole);
    }
}
