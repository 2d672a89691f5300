// Two CAMs of a sample, regulated; the letters are those of the docstring of kernels/regulate.
//
// Included once for each instruction set. Every array of a sample is padded to whole vectors; `valid` is all ones in the
// lanes that are pixels.

INLINE Floats choose(Words condition, Floats yes, Floats no) {
    return (Floats)((condition & (Words)yes) | (~condition & (Words)no));
}

// e^x to about a unit in the last place; below -87 the smallest normal number, above 88 the largest power. A NaN stays.
INLINE Floats exponential(Floats x) {
    x = choose((Words)(x < splat(-87)), splat(-87), x);
    x = choose((Words)(x > splat(88)), splat(88), x);
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
    const Floats shifted = x * splat(1.44269504f) + splat(12582912);
    const Floats power = shifted - splat(12582912);
    const Floats rest = x - power * splat(0.693359375f) - power * splat(-2.12194440e-4f);
    Floats value = splat(1.9875691500e-4f);
    value = value * rest + splat(1.3981999507e-3f);
    value = value * rest + splat(8.3334519073e-3f);
    value = value * rest + splat(4.1665795894e-2f);
    value = value * rest + splat(1.6666665459e-1f);
    value = value * rest + splat(5.0000001201e-1f);
    value = value * rest * rest + rest + splat(1);
    return value * (Floats)(((Words)shifted + (127u - 0x4b400000u)) << 23);
}

// A threshold, and what it changes by with the map's mean and with what was given of it: itself or an offset.
struct Cut {
    float cut, to_mean, to_given;
};

// One CAM before it meets the other.
struct Prepared {
    const float* values;
    float *map, *mask;
    float low, high, span, mean;
    Cut cut;
};

static Cut moved(float mean, float offset, float margin) {
    // A NaN stays.
    const float kept = mean < margin ? margin : mean > 1 - margin ? 1 - margin : mean;
    const float logit = __builtin_logf(kept / (1 - kept));
    const float w = 1 / (1 + __builtin_expf(2 * offset));
    const float cut = 1 / (1 + __builtin_expf(-2 * w * logit));
    const float slope = cut * (1 - cut);
    return {cut, kept == mean ? 2 * slope * w / (mean * (1 - mean)) : 0, -4 * slope * w * (1 - w) * logit};
}

INLINE Words valid_at(long pixel, long pixels) {
    return pixel + LANES <= pixels ? ~Words{} : first_lanes(pixels - pixel);
}

INLINE Floats only(Floats values, Words valid) { return (Floats)((Words)values & valid); }

// `cam` holds `pixels` values; scratch for 3 * padded(pixels).
static Prepared prepare(const Regulation& work, long number, float* scratch) {
    const float* const cam = work.cams + number * work.pixels;
    const long pixels = work.pixels, width = padded(pixels);
    float* const values = scratch;
    Prepared own = {values, scratch + width, scratch + 2 * width, 0, 0, 0, 0, {}};
    __builtin_memcpy(values, cam, pixels * sizeof(float));
    for (long pixel = pixels; pixel < width; ++pixel) values[pixel] = cam[0];
    Floats lowest = load(values), highest = lowest, flaw = {};
    for (long pixel = 0; pixel < width; pixel += LANES) {
        const Floats here = load(values + pixel);
        lowest = choose((Words)(here < lowest), here, lowest);
        highest = choose((Words)(here > highest), here, highest);
        // A comparison skips a NaN; a value minus itself is 0 if it is finite, else NaN.
        flaw += here - here;
    }
    own.low = lowest[0], own.high = highest[0];
    for (int lane = 1; lane < LANES; ++lane) {
        own.low = lowest[lane] < own.low ? lowest[lane] : own.low;
        own.high = highest[lane] > own.high ? highest[lane] : own.high;
    }
    const float largest = __builtin_fmaxf(__builtin_fabsf(own.low), __builtin_fabsf(own.high));
    own.span = own.high - own.low;
    const float overflow = own.span - own.span;
    // Dividing by infinity gives a constant map the value 0 and the gradient 0.
    if (own.span <= work.flat_relative * largest + work.flat_absolute) own.span = __builtin_inff();
    own.span += sum(flaw) + overflow;
    Floats total = {};
    for (long pixel = 0; pixel < width; pixel += LANES) {
        const Floats map = (load(values + pixel) - splat(own.low)) / splat(own.span);
        store(own.map + pixel, map);
        total += only(map, valid_at(pixel, pixels));
    }
    own.mean = sum(total) / pixels;
    own.cut = work.given     ? Cut{work.given[number], 0, 1}
              : work.offsets ? moved(own.mean, work.offsets[number], work.mean_margin)
                             : Cut{own.mean, 1, 0};
    for (long pixel = 0; pixel < width; pixel += LANES) {
        const Floats distance = load(own.map + pixel) - splat(own.cut.cut);
        store(own.mask + pixel, splat(1) / (splat(1) + exponential(-distance / splat(work.temperature))));
    }
    return own;
}

// Scratch for 6 * padded(pixels).
static void prepare_both(const Regulation& work, long sample, float* scratch, Prepared (&both)[2]) {
    const long width = padded(work.pixels);
    for (int i = 0; i < 2; ++i) both[i] = prepare(work, 2 * sample + i, scratch + 3 * i * width);
}

static void regulate_forward(const Regulation& work, long sample) {
    const long pixels = work.pixels, width = padded(pixels);
    Scratch scratch(6 * width);
    Prepared both[2];
    prepare_both(work, sample, scratch.data, both);
    for (int i = 0; i < 2; ++i) {
        const long number = 2 * sample + i;
        work.thresholds[number] = both[i].cut.cut;
        __builtin_memcpy(work.maps + number * pixels, both[i].map, pixels * sizeof(float));
        __builtin_memcpy(work.masks + number * pixels, both[i].mask, pixels * sizeof(float));
    }
    Floats dual = {}, agreement = {};
    for (long pixel = 0; pixel < width; pixel += LANES) {
        const Words valid = valid_at(pixel, pixels);
        const Floats map_a = load(both[0].map + pixel), mask_a = load(both[0].mask + pixel);
        const Floats map_b = load(both[1].map + pixel), mask_b = load(both[1].mask + pixel);
        const Floats out_a = splat(1) - mask_a, out_b = splat(1) - mask_b, apart = map_a - map_b;
        dual += only(mask_a * mask_b * map_a * map_b + out_a * out_b * apart * apart, valid);
        agreement += only(mask_a * out_b + mask_b * out_a, valid);
    }
    work.terms[2 * sample] = sum(dual) / pixels;
    work.terms[2 * sample + 1] = sum(agreement) / pixels;
}

static void regulate_backward(const Regulation& work, long sample) {
    const long pixels = work.pixels, width = padded(pixels);
    Scratch scratch(7 * width);
    Prepared both[2];
    prepare_both(work, sample, scratch.data, both);
    const float dual = work.grad_terms[2 * sample] / pixels, agreement = work.grad_terms[2 * sample + 1] / pixels;
    float* const q = scratch.data + 6 * width;
    for (int i = 0; i < 2; ++i) {
        const long number = 2 * sample + i;
        const Prepared &own = both[i], &other = both[1 - i];
        const float *grad_mask = work.grad_masks + number * pixels, *grad_map = work.grad_maps + number * pixels;
        Floats sum_z = {}, through_low = {}, through_high = {}, at_low = {}, at_high = {};
        for (long pixel = 0; pixel < width; pixel += LANES) {
            const Words valid = valid_at(pixel, pixels);
            const long left = pixels - pixel;
            const Floats values = load(own.values + pixel);
            const Floats x = load(own.map + pixel), mask = load(own.mask + pixel);
            const Floats y = load(other.map + pixel), other_mask = load(other.mask + pixel);
            const Floats apart = x - y, outside = splat(1) - other_mask;
            const Floats h = splat(dual) * (other_mask * x * y - outside * apart * apart) +
                             splat(agreement) * (splat(1) - splat(2) * other_mask);
            const Floats from_mask = left >= LANES ? load(grad_mask + pixel) : load_some(grad_mask + pixel, left);
            const Floats from_map = left >= LANES ? load(grad_map + pixel) : load_some(grad_map + pixel, left);
            const Floats z = (from_mask + h) * mask * (splat(1) - mask) / splat(work.temperature);
            const Floats here = from_map + z +
                                splat(dual) * (mask * other_mask * y + splat(2) * (splat(1) - mask) * outside * apart);
            store(q + pixel, here);
            sum_z += only(z, valid);
            through_low += only(here * (x - splat(1)), valid);
            through_high += only(here * x, valid);
            at_low += only(splat(1), valid & (Words)(values == splat(own.low)));
            at_high += only(splat(1), valid & (Words)(values == splat(own.high)));
        }
        const float e = work.grad_thresholds[number] - sum(sum_z);
        const float to_mean = e * own.cut.to_mean;
        const float to_all = to_mean / pixels;
        const float low = sum(through_low) + to_mean * (own.mean - 1);
        const float high = sum(through_high) + to_mean * own.mean;
        const Floats to_lowest = splat(low / (own.span * sum(at_low)));
        const Floats to_highest = splat(high / (own.span * sum(at_high)));
        for (long pixel = 0; pixel < width; pixel += LANES) {
            const Floats values = load(own.values + pixel);
            Floats gradient = (load(q + pixel) + splat(to_all)) / splat(own.span);
            gradient += only(to_lowest, (Words)(values == splat(own.low)));
            gradient -= only(to_highest, (Words)(values == splat(own.high)));
            float* const target = work.grad_cams + number * pixels + pixel;
            if (pixel + LANES <= pixels)
                store(target, gradient);
            else
                store_some(target, gradient, pixels - pixel);
        }
        if (work.given || work.offsets) work.grad_cuts[number] = e * own.cut.to_given;
    }
}
