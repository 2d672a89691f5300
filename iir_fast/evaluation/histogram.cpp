// Histograms of a score map's pixels on and off the objects.
#include <algorithm>
#include <cstdint>

// Scores [count] in [0, 1]; masks [count] of 0 and 1, of which a pixel may have one. Bin i is from edges[i] to before
// edges[i + 1], edges[0] = 0 and ascending, `bins` of them, about as wide as the first as far as there are scores: that
// only says where to look first. Returns 0, or -2 for other arguments; what was counted before is then left there.
extern "C" __attribute__((visibility("default"))) int iir_fast_count_scores(
    const double* scores, const uint8_t* on_object, const uint8_t* elsewhere, int64_t count, const double* edges,
    int64_t bins, int64_t* foreground, int64_t* background) {
    if (!scores || !on_object || !elsewhere || !edges || bins < 1 || edges[0] != 0 || !(edges[1] > 0)) return -2;
    const double step = edges[1];
    for (int64_t i = 0; i < count; ++i) {
        if (!(scores[i] >= 0 && scores[i] <= 1)) return -2;
        int64_t bin = int64_t(std::min(scores[i] / step, double(bins - 1)));
        while (scores[i] < edges[bin]) --bin;
        while (bin + 1 < bins && scores[i] >= edges[bin + 1]) ++bin;
        foreground[bin] += on_object[i];
        background[bin] += elsewhere[i];
    }
    return 0;
}
