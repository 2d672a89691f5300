// For every cut of a score map, what its contours' boxes score against true boxes: one pass over the grey levels in
// place of a search for contours at each of them.
//
// A cut at t leaves the pixels above t. As t falls, components of such pixels (8-connected) appear, grow and merge; as
// it rises, components of the others (4-connected) do, and those that do not reach the frame are the holes. A box
// counts from the cut at which a component got it to the last one before it changes or is swallowed.
//
// The largest contour is an outermost one. What it encloses, holes and all, is a component of the image in which every
// hole is filled up to the level at which it reaches the frame; its area, that of the polygon through pixel centres, is
// one for each 2x2 block of pixels inside and one half for each block that has three of its pixels there. Of several
// with that area the one that begins last in reading order counts.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "forest.h"

namespace {

// The true boxes in an image of that size.
struct Truth {
    int width, height;
    const int64_t* boxes;
    int64_t count;

    // Of the contour's box that goes `margin` pixels beyond `box`. As the protocol has it, the right and the lower side
    // are one further, but inside the image.
    double score(const Box& box, int margin) const {
        return best(box.x0 - margin, box.y0 - margin, std::min(box.x1 + margin + 1, width - 1),
                    std::min(box.y1 + margin + 1, height - 1));
    }

    // Best intersection over union of a box with any true one; corner pixels belong to both.
    double best(int64_t x0, int64_t y0, int64_t x1, int64_t y1) const {
        double best = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t* other = boxes + 4 * i;
            const int64_t shared_width = std::min(x1, other[2]) - std::max(x0, other[0]) + 1;
            const int64_t shared_height = std::min(y1, other[3]) - std::max(y0, other[1]) + 1;
            const int64_t both = std::max<int64_t>(shared_width, 0) * std::max<int64_t>(shared_height, 0);
            const int64_t own = (x1 - x0 + 1) * (y1 - y0 + 1);
            const int64_t others = (other[2] - other[0] + 1) * (other[3] - other[1] + 1);
            best = std::max(best, double(both) / double(own + others - both));
        }
        return best;
    }
};

void raise(double* best, int first, int last, double value) {
    for (int cut = first; cut <= last; ++cut) best[cut] = std::max(best[cut], value);
}

// Components of the pixels above a cut.
void score_components(const Image& image, Forest& forest, const Truth& truth, double* best) {
    int level = LEVELS - 1;
    const auto touch = [&](Component& component) {
        if (component.touched == level) return;
        // What it was ends with the cut at `level`; from the next one on it is what becomes of it here.
        if (component.since >= level) raise(best, level, component.since, truth.score(component.box, 0));
        component.since = level - 1;
        component.touched = level;
    };
    const auto merge = [&](int one, int other) {
        touch(forest.components[one]);
        touch(forest.components[other]);
        return forest.join(one, other);
    };
    Component fresh;
    fresh.since = -1;  // no cut yet
    forest.clear(image, tables.above, fresh);
    for (; level > 0; --level)
        for (int i = forest.pixels.begin[level]; i < forest.pixels.begin[level + 1]; ++i) {
            const int pixel = forest.pixels.items[i], x = image.column(pixel), y = image.row(pixel);
            Component& component = forest.components[forest.add(pixel, merge)];
            if (!component.box.lacks(x, y)) continue;
            touch(component);
            component.box.join({x, y, x, y});
        }
    // Down to the cut at 0 the rest goes on.
    for (int label = 0; label < forest.count; ++label)
        if (forest.components[label].parent == label) touch(forest.components[label]);
}

// Components of the pixels up to a cut that do not reach the frame: the boxes of their rims. Then fills them, and says
// whether there were any.
bool score_and_fill_holes(Image& image, Forest& forest, const Truth& truth, double* best) {
    int level = 0;
    const auto touch = [&](Component& component) {
        if (component.touched == level) return;
        if (component.since < level) raise(best, component.since, level - 1, truth.score(component.box, 1));
        component.since = component.touched = level;
    };
    const auto merge = [&](int one, int other) {
        Component &kept = forest.components[one], &merged = forest.components[other];
        if (kept.open == LEVELS) touch(kept);
        if (merged.open == LEVELS) touch(merged);
        if (kept.open == LEVELS && merged.open == LEVELS) return forest.join(one, other);
        // What reaches the frame here is not merged with what did before: it is filled up to this level.
        kept.open = std::min(kept.open, level);
        merged.open = std::min(merged.open, level);
        return one;
    };
    Component fresh;
    fresh.since = LEVELS;  // no cut yet
    forest.clear(image, tables.others, fresh);
    Component frame;
    frame.open = 0;
    forest.begin(frame);
    for (; level < LEVELS; ++level)
        // Neighbours of one level are above each other in reading order, so they are added against it.
        for (int i = forest.pixels.begin[level + 1]; i-- > forest.pixels.begin[level];) {
            const int pixel = forest.pixels.items[i], x = image.column(pixel), y = image.row(pixel);
            Component& component = forest.components[forest.add(pixel, merge)];
            if (component.open < LEVELS || !component.box.lacks(x, y)) continue;
            touch(component);
            component.box.join({x, y, x, y});
        }
    if (forest.count == 1) return false;
    for (int label = 0; label < forest.count; ++label)
        forest.components[label].open = forest.components[forest.find(label)].open;
    for (int y = 0; y < image.height; ++y)
        for (int pixel = image.at(0, y), end = image.at(image.width, y); pixel < end; ++pixel) {
            const int filled = forest.components[forest.component_of[forest.pieces[pixel]]].open;
            image.pixels[pixel] = uint8_t(std::max<int>(image.pixels[pixel], filled));
        }
    return true;
}

struct Workspace {
    Image image;
    Forest forest;
    Levels additions;
    Memory<int> added_to;
};

// The largest component above each cut of an image without holes.
void score_largest(Workspace& workspace, const Truth& truth, double* largest) {
    const Image& image = workspace.image;
    Forest& forest = workspace.forest;
    Levels& additions = workspace.additions;
    int level = LEVELS - 1, leader = -1;
    std::vector<int> changed;
    const auto touch = [&](int label) {
        if (forest.components[label].touched == level) return;
        forest.components[label].touched = level;
        changed.push_back(label);
    };
    const auto merge = [&](int one, int other) {
        touch(one);
        touch(other);
        return forest.join(one, other);
    };
    const auto wins = [&](int label, int other) {
        const Component &one = forest.components[label], &two = forest.components[other];
        return one.twice_the_area != two.twice_the_area ? one.twice_the_area > two.twice_the_area
                                                        : one.start > two.start;
    };
    forest.clear(image, tables.above, Component{});
    // A pixel's piece and what it adds to the area. The frame is among them, at level 0, which nobody asks for.
    additions.sort(
        image.count, [&](int pixel) { return image.pixels[pixel]; },
        [&](int pixel) { return forest.pieces[pixel] * 8 + tables.twice_the_area[image.above[pixel]]; });
    int* const added_to = workspace.added_to.at_least(image.count);
    for (; level > 0; --level) {
        changed.clear();
        const Component before = leader < 0 ? Component{} : forest.components[leader];
        for (int i = forest.pixels.begin[level]; i < forest.pixels.begin[level + 1]; ++i) {
            const int pixel = forest.pixels.items[i], x = image.column(pixel), y = image.row(pixel);
            const int root = forest.add(pixel, merge);
            touch(root);
            forest.components[root].box.join({x, y, x, y});
            forest.components[root].start = std::min(forest.components[root].start, pixel);
        }
        int count = 0;
        for (int i = additions.begin[level]; i < additions.begin[level + 1]; ++i) {
            const unsigned addition = unsigned(additions.items[i]);
            Component& component = forest.components[forest.component_of[addition / 8]];
            component.added += int(addition % 8);
            added_to[count] = forest.component_of[addition / 8];
            count += component.added_at != level;
            component.added_at = level;
        }
        for (int i = 0; i < count; ++i) {
            const int root = forest.find(added_to[i]);
            touch(root);
            forest.components[root].twice_the_area += std::exchange(forest.components[added_to[i]].added, 0);
        }
        if (leader >= 0) {
            leader = forest.find(leader);
            const Component& now = forest.components[leader];
            // It begins earlier and is no larger: it may have lost a tie to one that did not change.
            if (now.twice_the_area == before.twice_the_area && now.start != before.start)
                for (int label = 0; label < forest.count; ++label)
                    if (forest.components[label].parent == label && wins(label, leader)) leader = label;
        }
        for (int label : changed) {
            const int root = forest.find(label);
            if (leader < 0 || wins(root, leader)) leader = root;
        }
        if (leader >= 0) largest[level - 1] = truth.score(forest.components[leader].box, 0);
    }
}

int score(Workspace& workspace, const double* scoremap, const Truth& truth, double* largest, double* best) {
    Image& image = workspace.image;
    image.read(scoremap, truth.width, truth.height);
    image.compare();
    const double nothing = truth.best(0, 0, 0, 0);
    for (int cut = 0; cut < LEVELS; ++cut) largest[cut] = best[cut] = cut < image.highest ? 0 : nothing;
    score_components(image, workspace.forest, truth, best);
    if (score_and_fill_holes(image, workspace.forest, truth, best)) image.compare();
    score_largest(workspace, truth, largest);
    return image.highest;
}

// Whether everything stays inside its arrays and integers.
bool sound(const double* scoremap, int64_t height, int64_t width, const int64_t* boxes, int64_t count) {
    // With the frame. The number of a pixel's piece is kept times 8.
    constexpr int64_t most_pixels = INT32_MAX / 8, furthest = int64_t(1) << 30;
    if (!scoremap || !boxes || height < 1 || width < 1 || count < 1) return false;
    if (height > most_pixels || width > most_pixels || (height + 2) * (width + 2) > most_pixels) return false;
    for (int64_t i = 0; i < height * width; ++i)
        if (!(scoremap[i] >= 0 && scoremap[i] <= 1)) return false;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t* box = boxes + 4 * i;
        for (int side = 0; side < 2; ++side)
            if (box[side] < 0 || box[side + 2] < box[side] || box[side + 2] >= furthest) return false;
    }
    return true;
}

}  // namespace

// Score map [height, width] in [0, 1]; true boxes [count, 4], x0 <= x1, y0 <= y1, from 0 to below 2^30. For the cut at t, 0 <= t < 255, of the
// 8-bit image floor(255 map): largest[t] is the best IoU of the largest contour's box with any true one, best[t] that
// of any contour's. Where no pixel is above t both are those of the box 0, 0, 0, 0. Returns the image's highest level,
// -1 if there is no memory, or -2 if the arguments are others or the map has more than 2^28 pixels with its frame.
extern "C" __attribute__((visibility("default"))) int iir_fast_score_contours(
    const double* scoremap, int64_t height, int64_t width, const int64_t* boxes, int64_t count, double* largest,
    double* best) try {
    if (!sound(scoremap, height, width, boxes, count)) return -2;
    // A pointer, lest the compiler look for the thread's workspace again at every use.
    thread_local std::unique_ptr<Workspace> workspace;
    if (!workspace) workspace.reset(new Workspace);
    return score(*workspace, scoremap, {int(width), int(height), boxes, count}, largest, best);
} catch (const std::bad_alloc&) {
    return -1;
}
