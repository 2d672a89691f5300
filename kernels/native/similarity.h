// Rows that meet the rows of their group; the letters are those of kernels/subgroup_similarity/triton.py.
//
// Included once for each instruction set. Rows are visited in the order of their groups, so the partners of a row are
// the others between `first` and `last`.

INLINE float product(const float* one, const float* other, long count) {
    Floats totals[4] = {};
    long i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        UNROLLED for (int step = 0; step < 4; ++step)
            totals[step] += load(one + i + step * LANES) * load(other + i + step * LANES);
    for (; i + LANES <= count; i += LANES) totals[0] += load(one + i) * load(other + i);
    if (i < count) totals[1] += load_some(one + i, count - i) * load_some(other + i, count - i);
    return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

INLINE float inverse(float squared_length, float shortest) {
    const float length = __builtin_sqrtf(squared_length);
    // A length that has overflowed less itself is NaN, where 1 / length were 0.
    return length <= shortest ? 0 : 1 / length + (length - length);
}

// What a row brings to each of its pairs: 1/|f|, 1/|g| and e.
static void similarity_lengths(const Similarity& work, long part) {
    const long end = (part + 1) * work.rows_of_a_part < work.rows ? (part + 1) * work.rows_of_a_part : work.rows;
    for (long row = part * work.rows_of_a_part; row < end; ++row) {
        const float *f = work.foreground + row * work.channels, *g = work.background + row * work.channels;
        float* const found = work.lengths + 3 * row;
        found[0] = inverse(product(f, f, work.channels), work.shortest);
        found[1] = inverse(product(g, g, work.channels), work.shortest);
        const float lengths = (found[0] != 0) - float(found[1] != 0);
        found[2] = product(f, g, work.channels) * found[0] * found[1] + lengths / 2;
    }
}

INLINE float argument(const Similarity& work, long row, long other) {
    const float *own = work.lengths + 3 * row, *others = work.lengths + 3 * other;
    const float cosine =
        product(work.foreground + row * work.channels, work.foreground + other * work.channels, work.channels);
    return own[2] + others[2] - 2 * cosine * own[0] * others[0];
}

// Every row meets those behind it.
static void similarity_forward(const Similarity& work, long part) {
    const long end = (part + 1) * work.rows_of_a_part < work.rows ? (part + 1) * work.rows_of_a_part : work.rows;
    double total = 0;
    for (long place = part * work.rows_of_a_part; place < end; ++place)
        for (long other = place + 1; other < work.last[place]; ++other) {
            const float a = argument(work, work.order[place], work.order[other]);
            total += (a > 0 ? a : 0) + log1pf(expf(-__builtin_fabsf(a))) + (a - a);
        }
    work.totals[part] = total;
}

// Every row meets all others.
static void similarity_backward(const Similarity& work, long part) {
    const long end = (part + 1) * work.rows_of_a_part < work.rows ? (part + 1) * work.rows_of_a_part : work.rows;
    const long channels = work.channels, whole = channels / LANES * LANES;
    Scratch pulled(padded(channels));
    float* const p = pulled.data;
    for (long place = part * work.rows_of_a_part; place < end; ++place) {
        const long row = work.order[place];
        __builtin_memset(p, 0, padded(channels) * sizeof(float));
        float r = 0;
        for (long other_place = work.first[place]; other_place < work.last[place]; ++other_place) {
            if (other_place == place) continue;
            const long other = work.order[other_place];
            const float s = 1 / (1 + expf(-argument(work, row, other)));
            const Floats weight = splat(s * work.lengths[3 * other]);
            const float* const f = work.foreground + other * channels;
            r += s;
            for (long i = 0; i < whole; i += LANES) store(p + i, load(p + i) + weight * load(f + i));
            if (whole < channels) store(p + whole, load(p + whole) + weight * load_some(f + whole, channels - whole));
        }
        const float *f = work.foreground + row * channels, *g = work.background + row * channels;
        const float *own = work.lengths + 3 * row;
        // u = f / |f|, v = g / |g|
        const float k = product(f, p, channels) * own[0];
        const float cosine = product(f, g, channels) * own[0] * own[1];
        const Floats to_f = splat(work.scale * own[0]), to_g = splat(work.scale * own[1] * r);
        const Floats of_u = splat((2 * k - r * cosine) * own[0]), of_v = splat(r * own[1]);
        const Floats inverse_f = splat(own[0]), of_g = splat(cosine * own[1]);
        const auto write = [&](long i, Floats f_here, Floats g_here, long count) __attribute__((always_inline)) {
            const Floats df = to_f * (of_v * g_here - splat(2) * load(p + i) + of_u * f_here);
            const Floats dg = to_g * (inverse_f * f_here - of_g * g_here);
            float *const target_f = work.grad_foreground + row * channels + i;
            float *const target_g = work.grad_background + row * channels + i;
            if (count >= LANES) {
                store(target_f, df);
                store(target_g, dg);
            } else {
                store_some(target_f, df, count);
                store_some(target_g, dg, count);
            }
        };
        for (long i = 0; i < whole; i += LANES) write(i, load(f + i), load(g + i), LANES);
        if (whole < channels)
            write(whole, load_some(f + whole, channels - whole), load_some(g + whole, channels - whole),
                  channels - whole);
    }
}
