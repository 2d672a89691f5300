// For every cut of an 8-bit image, what its contours' boxes score against true boxes: one pass over the grey levels in
// place of a search for contours at each of them.
//
// A cut at t leaves the pixels above t. As t falls, components of such pixels (8-connected) appear, grow and merge; as
// it rises, components of the others (4-connected) do, and those that do not reach the frame are the holes. Both are
// followed by union-find over the pixels in the order of their grey levels. A box counts from the cut at which a
// component got it to the last one before it changes or is swallowed.
//
// The largest contour is an outermost one. What it encloses, holes and all, is a component of the image in which every
// hole is filled up to the lowest grey level of its rim; its area, that of the polygon through pixel centres, is one
// for each 2x2 block of pixels inside and one half for each block that has three of its pixels there. Of several with
// that area the one that begins last in reading order counts.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

namespace {

constexpr int LEVELS = 256;

struct Box {
    int x0, y0, x1, y1;

    bool lacks(int x, int y) const { return x < x0 || x > x1 || y < y0 || y > y1; }

    void join(const Box& other) {
        if (other.x0 < x0) x0 = other.x0;
        if (other.y0 < y0) y0 = other.y0;
        if (other.x1 > x1) x1 = other.x1;
        if (other.y1 > y1) y1 = other.y1;
    }
};

// Best intersection over union of a box with any true one; corner pixels belong to both.
struct Truth {
    const int64_t* boxes;
    int64_t count;

    double best(int64_t x0, int64_t y0, int64_t x1, int64_t y1) const {
        double best = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t* other = boxes + 4 * i;
            const int64_t width = (x1 < other[2] ? x1 : other[2]) - (x0 > other[0] ? x0 : other[0]) + 1;
            const int64_t height = (y1 < other[3] ? y1 : other[3]) - (y0 > other[1] ? y0 : other[1]) + 1;
            const int64_t both = (width > 0 ? width : 0) * (height > 0 ? height : 0);
            const int64_t own = (x1 - x0 + 1) * (y1 - y0 + 1);
            const int64_t others = (other[2] - other[0] + 1) * (other[3] - other[1] + 1);
            const double found = double(both) / double(own + others - both);
            if (found > best) best = found;
        }
        return best;
    }
};

// An image inside a frame of one pixel, so that no neighbour needs a test.
struct Framed {
    int width, height, stride, count;
    std::unique_ptr<uint8_t[]> pixels;

    Framed(int width, int height)
        : width(width), height(height), stride(width + 2), count((width + 2) * (height + 2)), pixels(new uint8_t[count]()) {}

    int at(int x, int y) const { return (y + 1) * stride + x + 1; }

    template <class Visit>
    void visit_frame(Visit visit) const {
        for (int x = -1; x <= width; ++x) visit(at(x, -1)), visit(at(x, height));
        for (int y = 0; y < height; ++y) visit(at(-1, y)), visit(at(width, y));
    }
};

struct Place {
    uint16_t x, y;
};

// Inner pixels by grey level, ascending, in reading order within a level. begin[v] is where level v begins.
struct Order {
    std::unique_ptr<Place[]> places;
    int begin[LEVELS + 1] = {};

    explicit Order(const Framed& image) : places(new Place[image.width * image.height]) {
        for (int y = 0; y < image.height; ++y)
            for (int x = 0; x < image.width; ++x) ++begin[image.pixels[image.at(x, y)] + 1];
        for (int level = 0; level < LEVELS; ++level) begin[level + 1] += begin[level];
        int next[LEVELS];
        for (int level = 0; level < LEVELS; ++level) next[level] = begin[level];
        for (int y = 0; y < image.height; ++y)
            for (int x = 0; x < image.width; ++x)
                places[next[image.pixels[image.at(x, y)]]++] = {uint16_t(x), uint16_t(y)};
    }
};

// Which of its eight neighbours are there, as bits: NW, N, NE, W, E, SW, S, SE.
enum { NW = 1, N = 2, NE = 4, W = 8, E = 16, SW = 32, S = 64, SE = 128 };

// For every such set of neighbours: one of each group that is connected around the pixel, as a list of bits, and twice
// the area that the pixel adds.
struct Tables {
    uint8_t corners_too[256], edges_only[256], twice_the_area[256];

    Tables() {
        const int ring[8] = {NW, N, NE, E, SE, S, SW, W};
        for (int there = 0; there < 256; ++there) {
            corners_too[there] = edges_only[there] = twice_the_area[there] = 0;
            for (int corner = 0; corner < 8; corner += 2) {
                const bool own = there & ring[corner];
                const bool before = there & ring[(corner + 7) % 8], after = there & ring[corner + 1];
                twice_the_area[there] += own + before + after >= 2;
                // 8-connected: edges touch across a corner. A corner stands for itself if neither edge is there.
                if (own && !before && !after) corners_too[there] |= ring[corner];
                if (after && !(there & ring[(corner + 7) % 8])) corners_too[there] |= ring[corner + 1];
                // 4-connected: they do only if it is there.
                if (after && !(before && own)) edges_only[there] |= ring[corner + 1];
            }
            if ((there & (N | E | S | W)) == (N | E | S | W)) corners_too[there] = N;
            if (there == 255) edges_only[there] = N;
        }
    }
};

const Tables tables;

struct Component {
    Box box;
    int since;    // the cut from which on it has this box
    int touched;  // the last grey level that changed it
};

// Components of pixels that are added level by level.
struct Forest {
    const int stride;
    std::unique_ptr<int[]> parent;
    std::unique_ptr<uint8_t[]> there;

    explicit Forest(const Framed& image)
        : stride(image.stride), parent(new int[image.count]), there(new uint8_t[image.count]()) {}

    void add(int pixel, int root) {
        there[pixel] = 1;
        parent[pixel] = root;
    }

    int neighbours(int pixel) const {
        const uint8_t *above = &there[pixel - stride], *here = &there[pixel], *below = &there[pixel + stride];
        return above[-1] * NW | above[0] * N | above[1] * NE | here[-1] * W | here[1] * E | below[-1] * SW |
               below[0] * S | below[1] * SE;
    }

    // Visits the roots of some neighbours.
    template <class Visit>
    void visit(int pixel, int some, Visit visit) {
        const int steps[8] = {-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1};
        for (; some; some &= some - 1) visit(find(pixel + steps[__builtin_ctz(some)]));
    }

    int find(int pixel) {
        while (parent[pixel] != pixel) pixel = parent[pixel] = parent[parent[pixel]];
        return pixel;
    }
};

void raise(double* best, int first, int last, double value) {
    for (int cut = first; cut <= last; ++cut)
        if (value > best[cut]) best[cut] = value;
}

// The right or lower corner of a contour's box, as the protocol has it: one further, but inside the image.
int64_t corner(int last, int size) { return last + 1 < size - 1 ? last + 1 : size - 1; }

// Components of the pixels above a cut.
void score_components(const Framed& image, const Order& order, const Truth& truth, double* best) {
    Forest forest(image);
    std::unique_ptr<Component[]> components(new Component[image.count]);
    const auto end_version = [&](Component& component, int level) {
        const Box& box = component.box;
        raise(best, level, component.since,
              truth.best(box.x0, box.y0, corner(box.x1, image.width), corner(box.y1, image.height)));
        // What it was ends with the cut at `level`; from the next one on it is what becomes of it here.
        component.since = level - 1;
        component.touched = level;
    };
    for (int level = LEVELS - 1; level > 0; --level)
        for (int i = order.begin[level]; i < order.begin[level + 1]; ++i) {
            const int x = order.places[i].x, y = order.places[i].y, pixel = image.at(x, y);
            int root = -1;
            forest.visit(pixel, tables.corners_too[forest.neighbours(pixel)], [&](int other) {
                if (root < 0) {
                    root = other;
                } else if (other != root) {
                    for (int each : {root, other})
                        if (components[each].touched != level) end_version(components[each], level);
                    components[root].box.join(components[other].box);
                    forest.parent[other] = root;
                }
            });
            if (root < 0) {
                root = pixel;
                components[pixel] = {{x, y, x, y}, level - 1, level};
            } else if (components[root].box.lacks(x, y)) {
                if (components[root].touched != level) end_version(components[root], level);
                components[root].box.join({x, y, x, y});
            }
            forest.add(pixel, root);
        }
    // Down to the cut at 0 the rest goes on.
    for (int pixel = 0; pixel < image.count; ++pixel)
        if (forest.there[pixel] && forest.parent[pixel] == pixel) end_version(components[pixel], 0);
}

// Components of the pixels up to a cut that do not reach the frame: the boxes of their rims.
void score_holes(const Framed& image, const Order& order, const Truth& truth, int highest, double* best) {
    Forest forest(image);
    std::unique_ptr<Component[]> components(new Component[image.count]);
    const auto end_version = [&](Component& component, int level) {
        const Box& box = component.box;
        raise(best, component.since, level - 1,
              truth.best(box.x0 - 1, box.y0 - 1, corner(box.x1 + 1, image.width), corner(box.y1 + 1, image.height)));
        component.since = component.touched = level;
    };
    // The frame is one component, whose box nobody asks for: pixel 0.
    image.visit_frame([&](int pixel) { forest.add(pixel, 0); });
    for (int level = 0; level < highest; ++level)
        for (int i = order.begin[level]; i < order.begin[level + 1]; ++i) {
            const int x = order.places[i].x, y = order.places[i].y, pixel = image.at(x, y);
            int root = -1;
            forest.visit(pixel, tables.edges_only[forest.neighbours(pixel)], [&](int other) {
                if (root < 0) {
                    root = other;
                } else if (other != root) {
                    for (int each : {root, other})
                        if (each && components[each].touched != level) end_version(components[each], level);
                    if (other == 0) {
                        other = root;
                        root = 0;
                    }
                    if (root) components[root].box.join(components[other].box);
                    forest.parent[other] = root;
                }
            });
            if (root < 0) {
                root = pixel;
                components[pixel] = {{x, y, x, y}, level, level};
            } else if (root && components[root].box.lacks(x, y)) {
                if (components[root].touched != level) end_version(components[root], level);
                components[root].box.join({x, y, x, y});
            }
            forest.add(pixel, root);
        }
    for (int pixel = 1; pixel < image.count; ++pixel)
        if (forest.there[pixel] && forest.parent[pixel] == pixel) end_version(components[pixel], highest);
}

// Every hole filled up to the lowest grey level of its rim: the least that a path from the frame has to climb to.
Framed fill_holes(const Framed& image) {
    Framed filled(image.width, image.height);
    std::unique_ptr<uint8_t[]> reached(new uint8_t[image.count]());
    // A pixel waits in the list of the level at which it is reached.
    std::unique_ptr<int[]> next(new int[image.count]);
    int waiting[LEVELS];
    for (int& first : waiting) first = -1;
    const int neighbours[4] = {-image.stride, -1, 1, image.stride};
    const auto reach = [&](int pixel, int level) {
        if (reached[pixel]) return;
        reached[pixel] = 1;
        const int climbed = image.pixels[pixel] > level ? image.pixels[pixel] : level;
        filled.pixels[pixel] = uint8_t(climbed);
        next[pixel] = waiting[climbed];
        waiting[climbed] = pixel;
    };
    image.visit_frame([&](int pixel) { reached[pixel] = 1; });
    for (int x = 0; x < image.width; ++x) reach(image.at(x, 0), 0), reach(image.at(x, image.height - 1), 0);
    for (int y = 0; y < image.height; ++y) reach(image.at(0, y), 0), reach(image.at(image.width - 1, y), 0);
    for (int level = 0; level < LEVELS; ++level)
        while (waiting[level] >= 0) {
            const int pixel = waiting[level];
            waiting[level] = next[pixel];
            for (int step : neighbours) reach(pixel + step, level);
        }
    return filled;
}

struct Blob {
    Box box;
    int twice_the_area;
    int start;  // first pixel in reading order
};

bool wins(const Blob& one, const Blob& other) {
    return one.twice_the_area != other.twice_the_area ? one.twice_the_area > other.twice_the_area
                                                      : one.start > other.start;
}

// The largest component above each cut of an image without holes.
void score_largest(const Framed& image, const Order& order, const Truth& truth, double* largest) {
    Forest forest(image);
    std::unique_ptr<Blob[]> blobs(new Blob[image.count]);
    std::unique_ptr<int[]> changed(new int[image.count]);
    // Components that are there, for the rare cut at which the leader may lose a tie.
    std::unique_ptr<int[]> alive(new int[image.count]);
    int count_alive = 0, leader = -1;
    for (int level = LEVELS - 1; level > 0; --level) {
        if (order.begin[level] == order.begin[level + 1]) {
            if (leader >= 0) largest[level - 1] = largest[level];
            continue;
        }
        const Blob before = leader >= 0 ? blobs[leader] : Blob{};
        int count_changed = 0;
        for (int i = order.begin[level]; i < order.begin[level + 1]; ++i) {
            const int x = order.places[i].x, y = order.places[i].y, pixel = image.at(x, y);
            const int there = forest.neighbours(pixel);
            int root = -1;
            forest.visit(pixel, tables.corners_too[there], [&](int other) {
                if (root < 0) {
                    root = other;
                } else if (other != root) {
                    Blob &own = blobs[root], &found = blobs[other];
                    own.box.join(found.box);
                    own.twice_the_area += found.twice_the_area;
                    if (found.start < own.start) own.start = found.start;
                    forest.parent[other] = root;
                }
            });
            if (root < 0) {
                root = pixel;
                blobs[pixel] = {{x, y, x, y}, 0, pixel};
                alive[count_alive++] = pixel;
            } else {
                blobs[root].box.join({x, y, x, y});
                if (pixel < blobs[root].start) blobs[root].start = pixel;
            }
            blobs[root].twice_the_area += tables.twice_the_area[there];
            forest.add(pixel, root);
            if (count_changed == 0 || changed[count_changed - 1] != root) changed[count_changed++] = root;
        }
        if (leader >= 0) leader = forest.find(leader);
        if (leader >= 0 && blobs[leader].twice_the_area == before.twice_the_area && blobs[leader].start != before.start) {
            int kept = 0;
            for (int i = 0; i < count_alive; ++i)
                if (forest.parent[alive[i]] == alive[i]) alive[kept++] = alive[i];
            count_alive = kept;
            for (int i = 0; i < count_alive; ++i)
                if (wins(blobs[alive[i]], blobs[leader])) leader = alive[i];
        }
        for (int i = 0; i < count_changed; ++i) {
            const int root = forest.find(changed[i]);
            if (leader < 0 || wins(blobs[root], blobs[leader])) leader = root;
        }
        const Box& box = blobs[leader].box;
        largest[level - 1] = truth.best(box.x0, box.y0, corner(box.x1, image.width), corner(box.y1, image.height));
    }
}

}  // namespace

// Image [height, width]; true boxes [count, 4], x0, y0, x1, y1. For the cut at t, 0 <= t < 255, of an image with a
// pixel above t: largest[t] is the best IoU of the largest contour's box with any true one, best[t] that of any
// contour's. Where no pixel is above t both are those of the box 0, 0, 0, 0. Returns 0 if there is no memory.
extern "C" __attribute__((visibility("default"))) int iir_fast_score_contours(const uint8_t* image, int height, int width,
                                                                              const int64_t* boxes, int64_t count,
                                                                              double* largest, double* best) try {
    Framed framed(width, height);
    int highest = 0;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            const uint8_t value = image[y * width + x];
            framed.pixels[framed.at(x, y)] = value;
            if (value > highest) highest = value;
        }
    const Truth truth = {boxes, count};
    const double nothing = truth.best(0, 0, 0, 0);
    for (int cut = 0; cut < LEVELS; ++cut) largest[cut] = best[cut] = cut < highest ? 0 : nothing;
    const Order order(framed);
    score_components(framed, order, truth, best);
    const Framed filled = fill_holes(framed);
    const bool has_holes = std::memcmp(filled.pixels.get(), framed.pixels.get(), framed.count) != 0;
    if (has_holes) score_holes(framed, order, truth, highest, best);
    std::unique_ptr<Order> own(has_holes ? new Order(filled) : nullptr);
    score_largest(filled, own ? *own : order, truth, largest);
    return 1;
} catch (const std::bad_alloc&) {
    return 0;
}
