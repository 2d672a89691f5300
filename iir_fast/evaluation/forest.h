// The components of an image's pixels while they are added one by one, in the order of their grey levels.
//
// Which of its neighbours a pixel finds there is known beforehand. Nearly all pixels find one connected group, on
// several sides: they join its component and do not widen its box. So they are joined to pieces first, in reading order
// and without a look at their levels, and only the others are added level by level: those that begin a piece, merge
// components, or may lie on the side of a box.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace {

constexpr int LEVELS = 256;

// Memory that is used again for the next map: fresh pages would take as much time as half of the work.
template <class T>
class Memory {
    std::unique_ptr<T[]> held;
    int size = 0;

  public:
    T* at_least(int count) {
        if (count > size) {
            held.reset(new T[count]);
            size = count;
        }
        return held.get();
    }
};

struct Box {
    int x0, y0, x1, y1;

    bool lacks(int x, int y) const { return x < x0 || x > x1 || y < y0 || y > y1; }

    void join(const Box& other) {
        x0 = std::min(x0, other.x0);
        y0 = std::min(y0, other.y0);
        x1 = std::max(x1, other.x1);
        y1 = std::max(y1, other.y1);
    }
};

// What joins it becomes its box.
constexpr Box NO_BOX = {INT32_MAX, INT32_MAX, INT32_MIN, INT32_MIN};

// A pixel's eight neighbours as bits.
enum { NW = 1, N = 2, NE = 4, W = 8, E = 16, SW = 32, S = 64, SE = 128 };

bool within(int some, int others) { return (some & ~others) == 0; }

bool single(int some) { return some && (some & (some - 1)) == 0; }

// What follows from the set of a pixel's neighbours that are above it, for components of those or of the others.
struct Rules {
    uint8_t groups[256];   // one of each group of neighbours that is connected around the pixel
    uint8_t before[256];   // those in such groups that come before the pixel in reading order
    uint8_t matters[256];  // 0 if it joins one group that has one of those, and cannot widen its box, else 1
};

struct Tables {
    Rules above, others;
    uint8_t twice_the_area[256];  // that the pixel adds to those above

    Tables() {
        const int ring[8] = {NW, N, NE, E, SE, S, SW, W}, edges = N | E | S | W;
        for (int there = 0; there < 256; ++there) {
            int corners_too = 0, edges_only = 0, beside_an_edge = 0;
            twice_the_area[there] = 0;
            for (int corner = 0; corner < 8; corner += 2) {
                const bool own = there & ring[corner];
                const bool before = there & ring[(corner + 7) % 8], after = there & ring[corner + 1];
                twice_the_area[there] += own + before + after >= 2;
                // Edges touch across a corner. A corner stands for itself if neither edge is there.
                if (own && !before && !after) corners_too |= ring[corner];
                if (after && !before) corners_too |= ring[corner + 1];
                // By edges alone they touch only if it is there.
                if (after && !(before && own)) edges_only |= ring[corner + 1];
                if (own && (before || after)) beside_an_edge |= ring[corner];
            }
            if (within(edges, there)) corners_too = N;
            if (there == 255) edges_only = N;
            above.groups[there] = uint8_t(corners_too);
            above.before[there] = there & (NW | N | NE | W);
            const bool on_a_side = within(there, NE | E | SE) || within(there, SW | S | SE) ||
                                   within(there, NW | W | SW) || within(there, NW | N | NE);
            above.matters[there] = on_a_side || !above.before[there] || !single(corners_too);
            const int missing = 255 - there;
            others.groups[missing] = uint8_t(edges_only);
            others.before[missing] = ((there & edges) | beside_an_edge) & (NW | N | NE | W);
            others.matters[missing] = single(there & edges) || !others.before[missing] || !single(edges_only);
        }
    }
};

const Tables tables;

// An 8-bit image inside a frame of one pixel, so that no neighbour needs a test.
struct Image {
    int width, height, stride, count, highest;
    uint8_t* pixels;
    // For every pixel the neighbours that are above it: higher, or as high and before it in reading order.
    uint8_t* above;

    int at(int x, int y) const { return (y + 1) * stride + x + 1; }
    int column(int pixel) const { return pixel % stride - 1; }
    int row(int pixel) const { return pixel / stride - 1; }

    void read(const double* scoremap, int new_width, int new_height) {
        width = new_width;
        height = new_height;
        stride = width + 2;
        count = (height + 2) * stride;
        pixels = memory_of_pixels.at_least(count);
        above = memory_of_above.at_least(count);
        std::fill(pixels, pixels + count, 0);
        std::fill(above, above + count, 0);
        for (int y = 0; y < height; ++y)
            std::transform(scoremap + y * width, scoremap + (y + 1) * width, pixels + at(0, y),
                           [](double score) { return uint8_t(int(score * 255)); });
        uint8_t most = 0;
        for (int pixel = 0, end = count; pixel < end; ++pixel) most = std::max(most, pixels[pixel]);
        highest = most;
    }

    void compare() {
        for (int y = 0; y < height; ++y) {
            const uint8_t *here = pixels + at(0, y), *upper = here - stride, *lower = here + stride;
            uint8_t* __restrict found = above + at(0, y);
            for (int x = 0, end = width; x < end; ++x) {
                const uint8_t own = here[x];
                found[x] = uint8_t((upper[x - 1] >= own ? NW : 0) | (upper[x] >= own ? N : 0) |
                                   (upper[x + 1] >= own ? NE : 0) | (here[x - 1] >= own ? W : 0) |
                                   (here[x + 1] > own ? E : 0) | (lower[x - 1] > own ? SW : 0) |
                                   (lower[x] > own ? S : 0) | (lower[x + 1] > own ? SE : 0));
            }
        }
        // The frame is above nothing, not even above level 0.
        for (int x = 0; x < width; ++x) {
            above[at(x, 0)] &= uint8_t(~(NW | N | NE));
            above[at(x, height - 1)] &= uint8_t(~(SW | S | SE));
        }
        for (int y = 0; y < height; ++y) {
            above[at(0, y)] &= uint8_t(~(NW | W | SW));
            above[at(width - 1, y)] &= uint8_t(~(NE | E | SE));
        }
    }

    template <class Visit>
    void visit_frame(Visit visit) const {
        for (int x = -1; x <= width; ++x) visit(at(x, -1)), visit(at(x, height));
        for (int y = 0; y < height; ++y) visit(at(-1, y)), visit(at(width, y));
    }

  private:
    Memory<uint8_t> memory_of_pixels, memory_of_above;
};

// Integers by grey level: those of level v are from begin[v] to before begin[v + 1].
struct Levels {
    int* items;
    int begin[LEVELS + 1];

    // item(i) goes to level(i), for i from 0 to before count; those of a level keep their order.
    template <class Level, class Item>
    void sort(int count, Level level, Item item) {
        items = memory.at_least(count);
        int next[LEVELS + 1] = {};
        for (int i = 0; i < count; ++i) ++next[level(i) + 1];
        for (int v = 0; v < LEVELS; ++v) next[v + 1] += next[v];
        std::copy(next, next + LEVELS + 1, begin);
        for (int i = 0; i < count; ++i) items[next[level(i)]++] = item(i);
    }

  private:
    Memory<int> memory;
};

// A component, or what is left of one that was merged into another.
struct Component {
    int parent = 0;  // itself, or what it was merged into
    Box box = NO_BOX;
    int since = 0;           // the first cut at which it had this box, in the order of the cuts
    int touched = -1;        // the last grey level that changed it
    int open = LEVELS;       // the grey level at which it reached the frame
    int start = INT32_MAX;   // its first pixel in reading order
    int twice_the_area = 0;  // of its polygon
    int added = 0;           // to that, but not yet to that of what it was merged into
    int added_at = -1;       // the last grey level that did
};

// Components of pixels that are added level by level.
struct Forest {
    Component* components;
    int count;
    int* pieces;        // the piece of every pixel
    int* component_of;  // the component that a piece joined when it began
    Levels pixels;      // those that matter, in reading order within a level

    // Components will begin as `fresh`.
    void clear(const Image& image, const Rules& rules, const Component& fresh) {
        this->image = &image;
        this->rules = &rules;
        this->fresh = fresh;
        count = 0;
        const int stride = image.stride;
        const int around[8] = {-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1};
        std::copy(around, around + 8, steps);
        // No two of the pixels that begin a component are neighbours; one more for the frame.
        components = memory_of_components.at_least(image.width * image.height / 2 + 2);
        component_of = memory_of_component_of.at_least(image.count);
        pieces = memory_of_pieces.at_least(image.count);
        // Piece 0 is the frame, for those rules by which it is there.
        image.visit_frame([&](int pixel) { pieces[pixel] = 0; });
        component_of[0] = 0;
        divide();
    }

    int begin(const Component& component) {
        components[count] = component;
        components[count].parent = count;
        return count++;
    }

    // What has become of a component.
    int find(int label) const {
        Component* const all = components;
        while (all[label].parent != label) label = all[label].parent = all[all[label].parent].parent;
        return label;
    }

    // Adds a pixel that matters and returns its component; merge(one, other) makes one component of two and returns it.
    template <class Merge>
    int add(int pixel, Merge merge) {
        const int there = image->above[pixel];
        int some = rules->groups[there];
        const auto component_there = [&] { return component_of[pieces[pixel + steps[__builtin_ctz(some)]]]; };
        if (!rules->before[there]) component_of[pieces[pixel]] = some ? component_there() : begin(fresh);
        int root = find(component_of[pieces[pixel]]);
        if (some & (some - 1))
            for (; some; some &= some - 1) {
                const int other = find(component_there());
                if (other != root) root = merge(root, other);
            }
        return root;
    }

    // The usual merge.
    int join(int one, int other) {
        Component &kept = components[one], &merged = components[other];
        kept.box.join(merged.box);
        kept.start = std::min(kept.start, merged.start);
        kept.twice_the_area += merged.twice_the_area;
        return merged.parent = one;
    }

  private:
    const Image* image;
    const Rules* rules;
    Component fresh;
    int steps[8];
    Memory<int> memory_of_pieces, memory_of_component_of, memory_of_matters;
    Memory<Component> memory_of_components;

    // Joins pixels to pieces and sorts those that matter. No branches: nobody could foresee which way they go.
    void divide() {
        int step[256];
        for (int there = 0; there < 256; ++there)
            step[there] = rules->before[there] ? steps[__builtin_ctz(rules->before[there])] : 0;
        const uint8_t *const above = image->above, *const matters = rules->matters;
        int *const pieces = this->pieces, *const found = memory_of_matters.at_least(image->count);
        int next = 1, size = 0;
        for (int y = 0; y < image->height; ++y)
            for (int pixel = image->at(0, y), end = image->at(image->width, y); pixel < end; ++pixel) {
                const int there = above[pixel];
                pieces[pixel] = next;  // it is its own, if there is no step to another
                pieces[pixel] = pieces[pixel + step[there]];
                next += step[there] == 0;
                found[size] = pixel;
                size += matters[there];
            }
        pixels.sort(size, [&](int i) { return image->pixels[found[i]]; }, [&](int i) { return found[i]; });
    }
};

}  // namespace
