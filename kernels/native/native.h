// What the native kernels are asked for. Plain C layout: Python fills these structures through ctypes.
//
// A sample's map is a matrix [rows, columns] with contiguous rows: channels by pixels in NCHW, pixels by channels in
// channels_last. Everything but the maps is float32 and contiguous, samples `..._stride` elements apart (0: one for
// all). Every sum is taken in an order that the shapes alone decide: the same bits on any number of threads.
#pragma once

typedef unsigned short Bfloat16;

enum { FLOAT32 = 0, BFLOAT16 = 1 };

// From one read of the maps, for every sample:
//   dots[d, row]    = sum over columns of vectors[d, column] * map[row, column]
//   adds[a, column] = sum over rows of weights[a, row] * map[row, column], for each share of the rows apart
// and with `squares` the sums of map^2, over columns behind the dots, or over rows behind the adds if there are none.
struct Sums {
    const void* maps;
    long sample_stride;
    long dtype, samples, rows, columns;
    const float* vectors;  // [samples, number_of_dots, columns]
    long vectors_stride;
    const float* weights;  // [samples, number_of_adds, rows]
    long weights_stride;
    float* dots;  // [samples, number_of_dots (+ 1), rows]
    float* adds;  // [samples, shares, number_of_adds (+ 1), columns]
    long number_of_dots, number_of_adds, squares;
    long shares;
};

// target[row, column] = sum over t of down_rows[t, row] * along_rows[t, column]
//                       + added_down_rows[row] + added_along_rows[column]
struct Products {
    void* target;  // [samples, rows, columns], contiguous
    long dtype, samples, rows, columns;
    const float* down_rows;  // [samples, number_of_terms, rows]
    long down_rows_stride;
    const float* along_rows;  // [samples, number_of_terms, columns]
    long along_rows_stride;
    const float* added_down_rows;   // [samples, rows] or null
    const float* added_along_rows;  // [samples, columns] or null
    long number_of_terms;
    long shares;
};

// Two CAMs of every sample, regulated: one part is one sample.
struct Regulation {
    const float* cams;     // [samples, 2, pixels]
    const float* given;    // thresholds [samples, 2] or null: each map's mean, moved by
    const float* offsets;  // [samples, 2], or null: by nothing
    float temperature, flat_relative, flat_absolute, mean_margin;
    long samples, pixels;
    // Forward.
    float *terms, *masks, *maps, *thresholds;  // [samples, 2], [samples, 2, pixels] twice, [samples, 2]
    // Backward: the gradients of these, then those that are asked for.
    const float *grad_terms, *grad_masks, *grad_maps, *grad_thresholds;
    float *grad_cams, *grad_cuts;  // [samples, 2, pixels], [samples, 2] of thresholds or offsets where they were given
};

// Same-group pairs of rows; a part is `rows_of_a_part` rows.
struct Similarity {
    const float *foreground, *background;  // [rows, channels]
    // The rows in the order of their groups, and for each place where its group begins and ends.
    const long *order, *first, *last;  // [rows]
    long rows, channels, rows_of_a_part;
    float shortest;
    float* lengths;  // [rows, 3]: made first, then used
    double* totals;  // forward: [parts], sums over unordered pairs
    float scale;     // backward: gradient of the loss, per unordered pair
    float *grad_foreground, *grad_background;  // [rows, channels]
};

typedef void (*SumsPart)(const Sums&, long part);
typedef void (*ProductsPart)(const Products&, long part);
typedef void (*RegulationPart)(const Regulation&, long part);
typedef void (*SimilarityPart)(const Similarity&, long part);

// The code for one instruction set. `sums` and `products` are null where there is none for that number of vectors.
struct InstructionSet {
    const char* name;
    SumsPart (*sums)(const Sums&);
    ProductsPart (*products)(const Products&);
    RegulationPart regulate_forward, regulate_backward;
    SimilarityPart similarity_lengths, similarity_forward, similarity_backward;
};

extern const InstructionSet avx512_bf16, avx512, avx2, baseline;
