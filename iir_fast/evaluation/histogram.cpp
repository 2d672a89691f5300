// Histograms of a score map's pixels on and off the objects.
#include <algorithm>
#include <cstdint>

// Scores [count] in [0, 1]; masks [count] of 0 and 1, of which a pixel may have one. Bin i is from edges[i] to before
// edges[i + 1], edges[0] = 0 and ascending, `bins` of them, about `step` wide as far as there are scores: that only
// says where to look first.
extern "C" __attribute__((visibility("default"))) void iir_fast_count_scores(
    const double* scores, const uint8_t* on_object, const uint8_t* elsewhere, int64_t count, const double* edges,
    int64_t bins, double step, int64_t* foreground, int64_t* background) {
    for (int64_t i = 0; i < count; ++i) {
        int64_t bin = std::min(int64_t(scores[i] / step), bins - 1);
        while (scores[i] < edges[bin]) --bin;
        while (bin + 1 < bins && scores[i] >= edges[bin + 1]) ++bin;
        foreground[bin] += on_object[i];
        background[bin] += elsewhere[i];
    }
}
