"""Tiles: how a program walks over the [C,P] map of a sample, whatever the memory order.

A tile is a piece of the map that one program holds in registers, shaped [1, vector, rows, lanes]. The axis that is
contiguous in memory is cut into windows of vector x lanes elements, the other one is walked row by row:

    planar (NCHW)     rows are channels, a window holds pixels
    channels_last     rows are pixels, a window holds channels

Threads lie along the lanes, then along the rows; `vector` elements of a window, and every `thread_rows`-th row, stay
within one thread. So a sum starts inside the threads at no cost (`sum_in_threads`), stays there while a loop goes
on, and crosses the threads once (`sum_across_threads`). The first axis of a tile is free for R classifiers or masks.

Three ways to memory:

- a thread takes `piece` neighbours at once, 16 bytes where the strides are aligned;
- `flat`, for a planar map of few pixels whose rows start inside a 32-byte sector (7x7, 14x14): the tile's rows are
  one contiguous stretch, read in 16-byte pieces that ignore where a row ends and dealt out to [rows, window] through
  shared memory. A sector is then read once, where loading 7x7 rows one by one would touch it 1.6 times on average;
- neither (large odd maps, slices): `piece` is 1, neighbouring threads take neighbouring elements.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

# Tiles on their way from memory while a program works on one.
STAGES = tl.constexpr(3)
# Programs that keep a large GPU busy.
PROGRAMS = 512
WINDOW = 256
VECTOR = 8
LOAD_BYTES = 16
BANK_BYTES = 4
SECTOR_BYTES = 32


class Tile(NamedTuple):
    """The shape of a tile; known to the compiler.

    A tuple of plain numbers, which every release of Triton can keep in its cache's keys. In a kernel only the fields
    exist: newer releases unpack tuples. A field is a plain int there before Triton 3.8, so a shape that holds one goes
    to `tl.full`, never to `tl.zeros`, which takes none.
    """

    planar: bool
    flat: bool
    channels: int
    pixels: int
    channel_stride: int
    pixel_stride: int
    warps: int
    vector: int
    piece: int
    rows: int
    thread_rows: int
    """Rows of a tile that lie in different threads; the others lie within one."""
    lanes: int
    window_share: int
    """Elements of the contiguous axis that one program takes: at most vector x lanes."""

    @classmethod
    def over(cls, maps: Tensor, *, window: int = WINDOW, per_thread: int = 16, warps: int = 4) -> Tile:
        """Choose the tile for maps [B,C,P], whatever B.

        Args:
            maps: any strides.
            window: elements of a window, at most.
            per_thread: elements of a tile that each thread holds.
            warps: of a program.
        """
        _, channels, pixels = maps.shape
        _, channel_stride, pixel_stride = maps.stride()
        planar = channel_stride != 1 or pixel_stride == 1
        if planar:
            all_rows, row_stride, all_elements, element_stride = channels, channel_stride, pixels, pixel_stride
        else:
            all_rows, row_stride, all_elements, element_stride = pixels, pixel_stride, channels, channel_stride
        size = maps.element_size()
        dense = (row_stride, element_stride) == (all_elements, 1)
        flat = planar and dense and pixels <= WINDOW and pixels * size % SECTOR_BYTES != 0
        padded = triton.next_power_of_2(all_elements)
        vector = min(VECTOR, padded)
        lanes = min(window, padded) // vector
        if flat:
            # Neighbouring threads read neighbouring words of shared memory.
            piece = min(vector, max(1, BANK_BYTES // size))
        else:
            piece = min(vector, math.gcd(row_stride, LOAD_BYTES // size)) if element_stride == 1 else 1
        rows = min(per_thread * 32 * warps // (vector * lanes), triton.next_power_of_2(all_rows))
        windows = triton.cdiv(all_elements, vector * lanes)
        return cls(
            planar=planar,
            flat=flat,
            channels=channels,
            pixels=pixels,
            channel_stride=channel_stride,
            pixel_stride=pixel_stride,
            warps=warps,
            vector=vector,
            piece=piece,
            rows=rows,
            thread_rows=_thread_rows(rows, lanes, warps),
            lanes=lanes,
            # Windows of equal size that begin at a whole sector.
            window_share=min(vector * lanes, triton.cdiv(triton.cdiv(all_elements, windows), 16) * 16),
        )

    def thinner(self, vector: int) -> Tile:
        """Return the same tile with fewer elements of a window in each thread and more threads along it; for flat
        tiles."""
        lanes = self.vector * self.lanes // vector
        return self._replace(vector=vector, lanes=lanes, thread_rows=_thread_rows(self.rows, lanes, self.warps))

    def onto(self, maps: Tensor) -> Tile:
        """Return the same tile with the strides of other maps [B,C,P]."""
        return self._replace(channel_stride=maps.stride(1), pixel_stride=maps.stride(2))

    @property
    def windows(self) -> int:
        """Programs side by side, each with a window of its own."""
        windows: int = triton.cdiv(self.pixels if self.planar else self.channels, self.window_share)
        return windows

    def split(self, programs: int = 1, min_rows: int = 1) -> Split:
        """Divide the rows among up to `programs` programs of at least `min_rows` rows each."""
        rows = self._all_rows
        return self._split(triton.cdiv(rows, max(1, min(programs, rows // min_rows))))

    def split_evenly(self, rows: int) -> Split:
        """Divide the rows into shares of that many, a power of two, whatever the batch; fewer if there are fewer."""
        return self._split(min(rows, triton.next_power_of_2(self._all_rows)))

    @property
    def _all_rows(self) -> int:
        return self.channels if self.planar else self.pixels

    def _split(self, rows: int) -> Split:
        tiles_each = triton.cdiv(rows, self.rows)
        shares = triton.cdiv(self._all_rows, tiles_each * self.rows)
        return Split(tiles_each, shares, self.windows, self.planar)


class Split(NamedTuple):
    """How the programs of a sample divide its map.

    It may change with the batch, so a kernel takes `tiles_each` at run time and reads the rest off its grid.
    """

    tiles_each: int
    """Tiles that a program walks over, one below the other."""
    row_shares: int
    window_shares: int
    planar: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Axes 1 and 2 of the grid."""
        return self.row_shares, self.window_shares

    @property
    def channel_shares(self) -> int:
        return self.row_shares if self.planar else self.window_shares

    @property
    def pixel_shares(self) -> int:
        return self.window_shares if self.planar else self.row_shares


def _thread_rows(rows: int, lanes: int, warps: int) -> int:
    return min(rows, max(1, 32 * warps // lanes))


@triton.jit
def share_at(row_share, window_share, tiles_each, tile: tl.constexpr):
    """First and last row, first and last window element of the share with these numbers."""
    row = row_share * tiles_each * tile.rows
    window = window_share * tile.window_share
    row_end = tl.minimum(row + tiles_each * tile.rows, tile.channels if tile.planar else tile.pixels)
    window_end = tl.minimum(window + tile.window_share, tile.pixels if tile.planar else tile.channels)
    return row, row_end, window, window_end


@triton.jit
def own_share(tiles_each, tile: tl.constexpr):
    """Return the share whose numbers this program has on axes 1 and 2 of the grid."""
    return share_at(tl.program_id(1), tl.program_id(2), tiles_each, tile)


@triton.jit
def channel_share(tile: tl.constexpr):
    """Return this program's number among those that share the channels."""
    return tl.program_id(1) if tile.planar else tl.program_id(2)


@triton.jit
def pixel_share(tile: tl.constexpr):
    """Return this program's number among those that share the pixels."""
    return tl.program_id(2) if tile.planar else tl.program_id(1)


@triton.jit
def pixel_shares(tile: tl.constexpr):
    """Return how many programs share the pixels."""
    return tl.num_programs(2) if tile.planar else tl.num_programs(1)


@triton.jit
def row_index(row, tile: tl.constexpr):
    return row + tl.arange(0, tile.rows)[None, None, :, None]


@triton.jit
def window_index(window, tile: tl.constexpr):
    element = tl.arange(0, tile.vector)[None, :, None, None]
    lane = tl.arange(0, tile.lanes)[None, None, None, :]
    return window + (element // tile.piece * tile.lanes + lane) * tile.piece + element % tile.piece


@triton.jit
def load_window(vectors, stride, count, window, window_end, R: tl.constexpr, dtype: tl.constexpr, tile: tl.constexpr):
    """Load a window of `count` <= R dense vectors, `stride` apart: [R,vector,1,lanes], zero outside."""
    length: tl.constexpr = tile.vector * tile.lanes
    slot = tl.arange(0, R * length)
    element = window + slot % length
    inside = (slot // length < count) & (element < window_end)
    values = tl.load(vectors + slot // length * stride + element, mask=inside, other=0)
    return deal_window(values, R, tile).to(dtype)


@triton.jit
def deal_window(values, R: tl.constexpr, tile: tl.constexpr):
    """Deal a window of R vectors [R * window] as it meets a tile: [R,vector,1,lanes]."""
    length: tl.constexpr = tile.vector * tile.lanes
    # Through shared memory, so that the compiler does not lay out the tiles like a small load.
    source = tl.arange(0, R)[:, None, None, None] * length + window_index(0, tile)
    values = tl.gather(values, tl.reshape(source, [R * length]), 0)
    return tl.reshape(values, [R, tile.vector, 1, tile.lanes])


@triton.jit
def load_rows(vectors, stride, count, row, row_end, R: tl.constexpr, dtype: tl.constexpr, tile: tl.constexpr):
    """Load what belongs to the rows of a tile, of `count` <= R dense vectors, `stride` apart: [R,1,rows,1], zero
    outside."""
    number, rows = tl.arange(0, R)[:, None, None, None], row_index(row, tile)
    inside = (number < count) & (rows < row_end)
    return tl.load(vectors + number * stride + rows, mask=inside, other=0).to(dtype)


@triton.jit
def store_rows(vectors, values, stride, count, row, row_end, tile: tl.constexpr):
    """Write what belongs to the rows of a tile, [R,1,rows,1], to `count` <= R dense vectors, `stride` apart."""
    number, rows = tl.arange(0, values.shape[0])[:, None, None, None], row_index(row, tile)
    inside = (number < count) & (rows < row_end)
    tl.store(vectors + number * stride + rows, values.to(vectors.dtype.element_ty), mask=inside)


@triton.jit
def store_window(vectors, values, stride, count, window, window_end, tile: tl.constexpr):
    """Write what belongs to the window of a tile, [R,vector,1,lanes], to `count` <= R dense vectors, `stride` apart."""
    number, elements = tl.arange(0, values.shape[0])[:, None, None, None], window_index(window, tile)
    inside = (number < count) & (elements < window_end)
    tl.store(vectors + number * stride + elements, values.to(vectors.dtype.element_ty), mask=inside)


@triton.jit
def pick_rows(vectors, first, tile: tl.constexpr):
    """Pick what belongs to the rows of a tile, from vectors [R,row_share]: [R,1,rows,1]."""
    R: tl.constexpr = vectors.shape[0]
    SHARE: tl.constexpr = vectors.shape[1]
    slot = tl.arange(0, R * tile.rows)
    source = slot // tile.rows * SHARE + first + slot % tile.rows
    return tl.reshape(tl.gather(tl.reshape(vectors, [R * SHARE]), source, 0), [R, 1, tile.rows, 1])


@triton.jit
def pick_window(vectors, tile: tl.constexpr):
    """Pick vectors [R,window] as they meet a tile: [R,vector,1,lanes]."""
    R: tl.constexpr = vectors.shape[0]
    source = tl.arange(0, R)[:, None, None, None] * vectors.shape[1] + window_index(0, tile)
    source = tl.reshape(source, [R * tile.vector * tile.lanes])
    picked = tl.gather(tl.reshape(vectors, [R * vectors.shape[1]]), source, 0)
    return tl.reshape(picked, [R, tile.vector, 1, tile.lanes])


@triton.jit
def sum_in_threads(values, over_rows: tl.constexpr, tile: tl.constexpr):
    """Sum over rows or window as far as each thread can alone: rows -> thread_rows, or vector -> 1."""
    if over_rows:
        repeats: tl.constexpr = values.shape[2] // tile.thread_rows
        shape: tl.constexpr = [values.shape[0], values.shape[1], repeats, tile.thread_rows, values.shape[3]]
        return tl.sum(tl.reshape(values, shape), 2)
    else:
        return tl.sum(values, 1, keep_dims=True)


@triton.jit
def sum_across_threads(values, over_rows: tl.constexpr):
    """Finish the sum: thread_rows -> 1, or lanes -> 1."""
    return tl.sum(values, 2 if over_rows else 3, keep_dims=True)


@triton.jit
def _pointers(maps, rows, elements, tile: tl.constexpr):
    # Slices of large tensors reach beyond 32-bit offsets, padding included.
    if 2 * (tile.channels * tile.channel_stride + tile.pixels * tile.pixel_stride) >= 2**31:
        rows, elements = rows.to(tl.int64), elements.to(tl.int64)
    if tile.planar:
        return maps + rows * tile.channel_stride + elements * tile.pixel_stride
    else:
        return maps + rows * tile.pixel_stride + elements * tile.channel_stride


@triton.jit
def load_tile(maps, row, row_end, window, window_end, dtype: tl.constexpr, tile: tl.constexpr):
    """Load the tile at `row` and `window` of the sample that `maps` points to; zero outside."""
    # maps [C,P] -> [1, vector, rows, lanes]
    if tile.flat:
        size: tl.constexpr = tile.vector * tile.rows * tile.lanes
        slot = tl.arange(0, size)
        end = tl.minimum(row_end - row, tile.rows) * tile.pixels
        stretch = tl.load(maps + row * tile.pixels + slot, mask=slot < end, other=0)
        element, lane = slot // (tile.rows * tile.lanes), slot % tile.lanes
        pixel = (element // tile.piece * tile.lanes + lane) * tile.piece + element % tile.piece
        source = slot // tile.lanes % tile.rows * tile.pixels + pixel
        # The last slot lies behind the last row wherever a window is longer than a row: it holds zero.
        source = tl.where(pixel < tile.pixels, source, size - 1)
        values = tl.reshape(tl.gather(stretch, source, 0), [1, tile.vector, tile.rows, tile.lanes])
    else:
        rows, elements = row_index(row, tile), window_index(window, tile)
        inside = (rows < row_end) & (elements < window_end)
        values = tl.load(_pointers(maps, rows, elements, tile), mask=inside, other=0)
    return values.to(dtype)


@triton.jit
def store_tile(maps, values, row, row_end, window, window_end, tile: tl.constexpr):
    """Write a tile to the sample that `maps` points to; `tile` has the strides of what is written."""
    # values [1, vector, rows, lanes] -> maps [C,P]
    values = values.to(maps.dtype.element_ty)
    if tile.flat:
        size: tl.constexpr = tile.vector * tile.rows * tile.lanes
        slot = tl.arange(0, size)
        pixel = slot % tile.pixels
        piece = pixel // tile.piece
        element = piece // tile.lanes * tile.piece + pixel % tile.piece
        source = (element * tile.rows + slot // tile.pixels) * tile.lanes + piece % tile.lanes
        # What lies behind the last row is not stored, but must come from somewhere.
        stretch = tl.gather(tl.reshape(values, [size]), tl.minimum(source, size - 1), 0)
        end = tl.minimum(row_end - row, tile.rows) * tile.pixels
        tl.store(maps + row * tile.pixels + slot, stretch, mask=slot < end)
    else:
        rows, elements = row_index(row, tile), window_index(window, tile)
        inside = (rows < row_end) & (elements < window_end)
        tl.store(_pointers(maps, rows, elements, tile), values, mask=inside)
