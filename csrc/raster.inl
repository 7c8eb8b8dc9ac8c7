// Included once per instruction set, with TAMIS_RASTER naming the table (see raster.h). Each function does in one pass over
// memory what src/tamis/subtitles/raster.py says in NumPy; that is its definition.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "raster.h"

namespace {

using Bytes = std::vector<uint8_t>;
// Rows that do not overlap. Compilers believe it of a function's arguments only, and give up on vectors where they do not;
// so the inner loops are functions.
using Row = uint8_t* __restrict;
using ReadRow = const uint8_t* __restrict;
#if defined(__GNUC__)
#define TAMIS_APART __attribute__((noinline))  // inlined, the promise is forgotten
#else
#define TAMIS_APART
#endif

constexpr int cell = 4;          // px (lines.py)
constexpr int step_x = 2, step_y = 1;  // strokes.py

void halve(int, const uint8_t* plane, int64_t stride, int32_t height, int32_t width, uint8_t* copy, uint8_t* out) {
  for (int32_t y = 0; y < height / 2; y++) {
    ReadRow upper = plane + 2 * y * stride;
    ReadRow lower = upper + stride;
    Row to = out + static_cast<int64_t>(y) * (width / 2);
    for (int32_t x = 0; x < width / 2; x++)
      to[x] = static_cast<uint8_t>((upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1] + 2) >> 2);
    if (copy) {
      memcpy(copy + 2 * y * static_cast<int64_t>(width), upper, static_cast<size_t>(width));
      memcpy(copy + (2 * y + 1) * static_cast<int64_t>(width), lower, static_cast<size_t>(width));
    }
  }
}

inline uint8_t less(uint8_t a, uint8_t b) { return a < b ? a : b; }
inline uint8_t more(uint8_t a, uint8_t b) { return a > b ? a : b; }
inline uint8_t mask(bool whether) { return static_cast<uint8_t>(-static_cast<int>(whether)); }
inline uint8_t above(uint8_t a, uint8_t b) { return static_cast<uint8_t>(more(a, b) - b); }  // a - b, at least 0

TAMIS_APART void first_steps(ReadRow low, ReadRow high, int32_t wide, Row rise, Row fall) {
  for (int32_t x = 0; x < wide; x++) {
    rise[x] = above(high[x], low[x]);
    fall[x] = above(low[x], high[x]);
  }
}

TAMIS_APART void next_steps(ReadRow low, ReadRow high, int32_t wide, uint8_t faint, uint8_t young, Row rise, Row fall,
                Row age_rise, Row age_fall, Row newborn) {
  for (int32_t x = 0; x < wide; x++) {
    const uint8_t up = above(high[x], low[x]), down = above(low[x], high[x]);
    const uint8_t both_up = less(rise[x], up), both_down = less(fall[x], down);
    rise[x] = up;
    fall[x] = down;
    // Saturating: 255 stays.
    const uint8_t older_up = static_cast<uint8_t>(less(age_rise[x], 254) + 1);
    const uint8_t older_down = static_cast<uint8_t>(less(age_fall[x], 254) + 1);
    // Masks, for a choice would become a branch.
    const uint8_t now_up = older_up & mask(both_up > faint), now_down = older_down & mask(both_down > faint);
    age_rise[x] = now_up;
    age_fall[x] = now_down;
    const uint8_t new_up = both_up & mask(both_up > faint) & mask(now_up <= young);
    const uint8_t new_down = both_down & mask(both_down > faint) & mask(now_down <= young);
    newborn[x] = more(new_up, new_down);
  }
}

TAMIS_APART int32_t count_above(ReadRow row, int32_t width, uint8_t least) {
  int32_t count = 0;
  for (int32_t x = 0; x < width;) {  // bytes are counted in bytes, a few hundred at a time
    const int32_t end = std::min(width, x + 248);
    uint8_t some[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (; x + 8 <= end; x += 8)
      for (int i = 0; i < 8; i++) some[i] = static_cast<uint8_t>(some[i] - mask(row[x + i] > least));
    for (; x < end; x++) count += row[x] > least;
    for (int i = 0; i < 8; i++) count += some[i];
  }
  return count;
}

int64_t strokes(int, const uint8_t* picture, int32_t height, int32_t width, int32_t before, int32_t faintest,
                int32_t newborn_age, uint8_t* rise, uint8_t* fall, uint8_t* age_rise, uint8_t* age_fall,
                uint8_t* newborn) {
  const int32_t wide = width - step_x;
  const uint8_t faint = static_cast<uint8_t>(faintest), young = static_cast<uint8_t>(newborn_age);
  int64_t count = 0;
  for (int32_t y = 0; y < height - step_y; y++) {
    const int64_t row = static_cast<int64_t>(y) * wide;
    const uint8_t* low = picture + static_cast<int64_t>(y) * width;
    const uint8_t* high = low + step_y * static_cast<int64_t>(width) + step_x;
    if (!before) {
      first_steps(low, high, wide, rise + row, fall + row);
      continue;
    }
    next_steps(low, high, wide, faint, young, rise + row, fall + row, age_rise + row, age_fall + row, newborn + row);
    count += count_above(newborn + row, wide, 0);
  }
  return count;
}

// Connected components by union of provisional labels, row by row.
struct Components {
  std::vector<int32_t> parent{0};

  int32_t root(int32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  }
  int32_t join(int32_t a, int32_t b) {
    a = root(a), b = root(b);
    if (a > b) std::swap(a, b);
    return parent[b] = a;
  }
  int32_t fresh() {
    parent.push_back(static_cast<int32_t>(parent.size()));
    return parent.back();
  }
};

int64_t components(int, const uint8_t* mask, int64_t stride, int32_t height, int32_t width, int32_t connectivity,
                   int32_t* labels, int32_t* stats, int64_t most) {
  Components found;
  const bool diagonal = connectivity == 8;
  for (int32_t y = 0; y < height; y++) {
    const uint8_t* row = mask + y * stride;
    int32_t* here = labels + static_cast<int64_t>(y) * width;
    const int32_t* over = here - width;
    for (int32_t x = 0; x < width; x++) {
      if (!row[x]) {
        here[x] = 0;
        continue;
      }
      int32_t label = x > 0 ? here[x - 1] : 0;
      const auto meet = [&](int32_t other) {
        if (other) label = label && label != other ? found.join(label, other) : other;
      };
      if (y > 0) {
        if (diagonal && x > 0) meet(over[x - 1]);
        meet(over[x]);
        if (diagonal && x + 1 < width) meet(over[x + 1]);
      }
      here[x] = label ? label : found.fresh();
    }
  }
  // The order of OpenCV, which scans blocks of 2 x 2 pixels where they connect diagonally.
  const int32_t side = diagonal ? 2 : 1;
  const int64_t across = (width + side - 1) / side;
  const size_t provisional = found.parent.size();
  std::vector<int64_t> first(provisional, -1);
  std::vector<int32_t> roots;
  for (int32_t y = 0; y < height; y++) {
    int32_t* here = labels + static_cast<int64_t>(y) * width;
    for (int32_t x = 0; x < width; x++)
      if (here[x]) {
        here[x] = found.root(here[x]);
        int64_t& place = first[here[x]];
        const int64_t block = y / side * across + x / side;
        if (place < 0) {
          roots.push_back(here[x]);
          place = block;
        } else if (block < place) {
          place = block;
        }
      }
  }
  if (static_cast<int64_t>(roots.size()) > most) return -1;
  std::sort(roots.begin(), roots.end(), [&](int32_t a, int32_t b) { return first[a] < first[b]; });
  std::vector<int32_t> number(provisional, 0);
  for (size_t i = 0; i < roots.size(); i++) {
    number[roots[i]] = static_cast<int32_t>(i) + 1;
    int32_t* s = stats + 5 * i;
    s[0] = width, s[1] = height, s[2] = s[3] = s[4] = 0;  // left, top, right, bottom, area until the end
  }
  for (int32_t y = 0; y < height; y++) {
    int32_t* here = labels + static_cast<int64_t>(y) * width;
    for (int32_t x = 0; x < width; x++)
      if (here[x]) {
        here[x] = number[here[x]];
        int32_t* s = stats + 5 * static_cast<int64_t>(here[x] - 1);
        s[0] = std::min(s[0], x), s[1] = std::min(s[1], y);
        s[2] = std::max(s[2], x + 1), s[3] = std::max(s[3], y + 1);
        s[4]++;
      }
  }
  for (size_t i = 0; i < roots.size(); i++) {
    int32_t* s = stats + 5 * i;
    s[2] -= s[0], s[3] -= s[1];
  }
  return static_cast<int64_t>(roots.size());
}

// out[x] = extreme of in[x - reach .. x - reach + length - 1], as far as that lies inside the row.
template <class Extreme>
void along(const uint8_t* in, uint8_t* out, int32_t width, int32_t length, Extreme extreme) {
  const int32_t reach = length / 2;
  for (int32_t x = 0; x < width; x++) {
    const int32_t from = std::max(0, x - reach), to = std::min(width, x - reach + length);
    uint8_t value = in[from];
    for (int32_t i = from + 1; i < to; i++) value = extreme(value, in[i]);
    out[x] = value;
  }
}

TAMIS_APART void add_above(ReadRow from, int32_t width, uint8_t least, Row sums) {
  for (int32_t x = 0; x < width; x++) sums[x] = static_cast<uint8_t>(sums[x] - mask(from[x] > least));
}

int64_t pieces(int, const uint8_t* plane, int64_t stride, int32_t height, int32_t width, int32_t strength,
               int32_t least, int32_t run, int32_t smallest, int32_t* out, int64_t most) {
  const int32_t high = height / cell, wide = width / cell;
  const uint8_t strong = static_cast<uint8_t>(strength);
  uint8_t share[cell * cell + 1];  // of 255, rounded to nearest even
  for (int i = 0; i <= cell * cell; i++) share[i] = static_cast<uint8_t>(rint(i * 255.0 / (cell * cell)));
  Bytes cells(static_cast<size_t>(high) * wide), columns(static_cast<size_t>(wide) * cell), row(wide), other(wide);
  bool any = false;
  for (int32_t y = 0; y < high; y++) {
    std::fill(columns.begin(), columns.end(), uint8_t{0});
    for (int32_t i = 0; i < cell; i++) {
      const uint8_t* from = plane + (static_cast<int64_t>(y) * cell + i) * stride;
      add_above(from, wide * cell, strong, columns.data());
    }
    if (std::none_of(columns.begin(), columns.end(), [](uint8_t sum) { return sum != 0; })) continue;
    for (int32_t x = 0; x < wide; x++) {
      const uint8_t* four = &columns[static_cast<size_t>(x) * cell];
      row[x] = share[four[0] + four[1] + four[2] + four[3]];
    }
    uint8_t* to = &cells[static_cast<size_t>(y) * wide];
    const int32_t enough = 3 * least + 2;  // the mean of three, rounded, is above `least` from that sum on
    for (int32_t x = 1; x + 1 < wide; x++) other[x] = row[x - 1] + row[x] + row[x + 1] >= enough;
    other[0] = row[0] + 2 * row[1] >= enough;
    other[wide - 1] = row[wide - 1] + 2 * row[wide - 2] >= enough;
    along(other.data(), row.data(), wide, 3, more);
    along(row.data(), run > 1 ? other.data() : to, wide, 3, less);
    if (run > 1) {
      along(other.data(), row.data(), wide, run, less);
      along(row.data(), to, wide, run, more);
    }
    for (int32_t x = 0; x < wide; x++) any |= to[x] != 0;
  }
  if (!any) return 0;
  std::vector<int32_t> labels(cells.size()), stats(5 * (cells.size() + 1));
  const int64_t number = components(0, cells.data(), wide, high, wide, 8, labels.data(), stats.data(),
                                    static_cast<int64_t>(cells.size()));
  int64_t kept = 0;
  for (int64_t i = 0; i < number && kept < most; i++)
    if (stats[5 * i + 4] >= smallest) memcpy(out + 5 * kept++, &stats[5 * i], 5 * sizeof(int32_t));
  return kept;
}

// Whether two runs of rows are two lines, not the parts of one character such as 二 (lines.py).
bool separate(int32_t first, int32_t last, int32_t next, int32_t end, int32_t width) {
  const int32_t above = last - first, below = end - next;
  const int32_t larger = std::max(above, below), smaller = std::min(above, below);
  if (next - last > 0.8 * larger) return true;
  return smaller >= 10 && smaller > 0.5 * larger && width >= 1.5 * larger;
}

TAMIS_APART int32_t gather_above(ReadRow row, int32_t width, uint8_t least, Row filled) {
  int32_t sum = 0;
  for (int32_t x = 0; x < width; x++) {
    const uint8_t value = row[x] & mask(row[x] > least);
    filled[x] |= value;
    sum += value;
  }
  return sum;
}

int64_t rows(int, const uint8_t* plane, int64_t stride, int32_t left, int32_t top, int32_t right, int32_t bottom,
             int32_t strength, double thin, int64_t* lines, double* weights) {
  const int32_t width = right - left, height = bottom - top;
  const uint8_t strong = static_cast<uint8_t>(strength);
  std::vector<int32_t> profile(height), sorted;
  for (int32_t y = 0; y < height; y++) {
    profile[y] = count_above(plane + (top + y) * stride + left, width, strong);
  }
  sorted = profile;
  const int32_t place = static_cast<int32_t>(0.9 * (height - 1));
  std::nth_element(sorted.begin(), sorted.begin() + place, sorted.end());
  const double level = thin * sorted[place];
  std::vector<std::pair<int32_t, int32_t>> runs;
  for (int32_t y = 0; y < height;) {
    if (!(profile[y] > level)) {
      y++;
      continue;
    }
    int32_t end = y;
    while (end < height && profile[end] > level) end++;
    if (!runs.empty() && !separate(runs.back().first, runs.back().second, y, end, width))
      runs.back().second = end;
    else
      runs.emplace_back(y, end);
    y = end;
  }
  int64_t found = 0;
  Bytes filled(width);
  for (const auto& [first, last] : runs) {
    std::fill(filled.begin(), filled.end(), uint8_t{0});
    int64_t count = 0, sum = 0;
    for (int32_t y = first; y < last; y++) {
      sum += gather_above(plane + (top + y) * stride + left, width, strong, filled.data());
      count += profile[y];
    }
    int32_t x0 = 0, x1 = width;
    while (x0 < width && !filled[x0]) x0++;
    if (x0 == width) continue;
    while (!filled[x1 - 1]) x1--;
    int64_t* line = lines + 5 * found;
    line[0] = left + x0, line[1] = top + first, line[2] = left + x1, line[3] = top + last, line[4] = count;
    const int64_t area = static_cast<int64_t>(x1 - x0) * (last - first);
    weights[found++] = static_cast<double>(count) / static_cast<double>(area) * static_cast<double>(sum);
  }
  return found;
}

int64_t depth(int, const uint8_t* mask, int32_t height, int32_t width, int32_t far, int64_t* count) {
  std::vector<int32_t> d(static_cast<size_t>(height) * width);
  const auto at = [&](int32_t y, int32_t x) -> int32_t& { return d[static_cast<size_t>(y) * width + x]; };
  for (int32_t y = 0; y < height; y++)
    for (int32_t x = 0; x < width; x++) {
      int32_t value = 0;
      if (mask[static_cast<int64_t>(y) * width + x]) {
        value = far;
        if (y > 0) value = std::min(value, at(y - 1, x) + 1);
        if (x > 0) value = std::min(value, at(y, x - 1) + 1);
      }
      at(y, x) = value;
    }
  int64_t sum = 0;
  *count = 0;
  for (int32_t y = height - 1; y >= 0; y--)
    for (int32_t x = width - 1; x >= 0; x--) {
      int32_t& value = at(y, x);
      if (y + 1 < height) value = std::min(value, at(y + 1, x) + 1);
      if (x + 1 < width) value = std::min(value, at(y, x + 1) + 1);
      sum += value;
      *count += value != 0;
    }
  return sum;
}

TAMIS_APART void extremes(ReadRow row, int32_t width, Row least, Row most) {
  for (int32_t x = 0; x < width; x++) {
    least[x] = less(least[x], row[x]);
    most[x] = more(most[x], row[x]);
  }
}

TAMIS_APART void add_row(ReadRow row, int32_t width, uint16_t* __restrict sums) {
  for (int32_t x = 0; x < width; x++) sums[x] = static_cast<uint16_t>(sums[x] + row[x]);
}

TAMIS_APART void scaled(const uint16_t* __restrict sums, int32_t width, float share, Row to) {
  for (int32_t x = 0; x < width; x++) to[x] = static_cast<uint8_t>(rintf(static_cast<float>(sums[x]) * share));
}

void merge(int, const uint8_t* const* planes, const int64_t* strides, const uint8_t* averaged, int32_t number,
           int32_t height, int32_t width, uint8_t* mean, uint8_t* low, uint8_t* high) {
  std::vector<uint16_t> sums(width);
  int32_t summed = 0;
  for (int32_t i = 0; i < number; i++) summed += averaged[i] != 0;
  const float share = summed ? static_cast<float>(1.0 / summed) : 0;
  for (int32_t y = 0; y < height; y++) {
    uint8_t* least = low + static_cast<int64_t>(y) * width;
    uint8_t* most = high + static_cast<int64_t>(y) * width;
    memcpy(least, planes[0] + y * strides[0], static_cast<size_t>(width));
    memcpy(most, planes[0] + y * strides[0], static_cast<size_t>(width));
    std::fill(sums.begin(), sums.end(), uint16_t{0});
    for (int32_t i = 0; i < number; i++) {
      const uint8_t* row = planes[i] + y * strides[i];
      if (i > 0) extremes(row, width, least, most);
      if (averaged[i]) add_row(row, width, sums.data());
    }
    scaled(sums.data(), width, share, mean + static_cast<int64_t>(y) * width);
  }
}

// Where a pixel beyond the edge is taken from: mirrored, the last one not repeated.
inline int32_t mirrored(int32_t i, int32_t size) {
  if (size == 1) return 0;
  while (i < 0 || i >= size) i = i < 0 ? -i : 2 * size - 2 - i;
  return i;
}

template <class From, class To>
TAMIS_APART void add_times(const From* __restrict row, int32_t width, To weight, To* __restrict sums) {
  for (int32_t x = 0; x < width; x++) sums[x] = static_cast<To>(sums[x] + weight * row[x]);
}

TAMIS_APART void add_gathered(ReadRow row, const int32_t* __restrict place, const float* __restrict weight, int32_t width,
                  float* __restrict sums) {
  for (int32_t x = 0; x < width; x++) sums[x] += weight[x] * row[place[x]];
}

void blur(int, const uint8_t* plane, int64_t stride, int32_t height, int32_t width, const uint16_t* kernel,
          int32_t radius, uint8_t* out) {
  const size_t wide = static_cast<size_t>(width);
  Bytes padded(wide + 2 * static_cast<size_t>(radius));
  std::vector<uint16_t> rows(wide * static_cast<size_t>(height));
  for (int32_t y = 0; y < height; y++) {
    const uint8_t* from = plane + y * stride;
    memcpy(padded.data() + radius, from, wide);
    for (int32_t i = 1; i <= radius; i++) {
      padded[static_cast<size_t>(radius - i)] = from[mirrored(-i, width)];
      padded[wide + static_cast<size_t>(radius + i - 1)] = from[mirrored(width + i - 1, width)];
    }
    uint16_t* to = &rows[wide * static_cast<size_t>(y)];
    for (int32_t k = 0; k <= 2 * radius; k++) add_times(padded.data() + k, width, kernel[k], to);
  }
  std::vector<uint32_t> sums(wide);
  for (int32_t y = 0; y < height; y++) {
    std::fill(sums.begin(), sums.end(), uint32_t{1} << 15);
    for (int32_t k = 0; k <= 2 * radius; k++) {
      const uint16_t* row = &rows[wide * static_cast<size_t>(mirrored(y + k - radius, height))];
      add_times(row, width, static_cast<uint32_t>(kernel[k]), sums.data());
    }
    uint8_t* to = out + static_cast<int64_t>(y) * width;
    for (int32_t x = 0; x < width; x++) to[x] = static_cast<uint8_t>(sums[x] >> 16);
  }
}

void resample(int, const uint8_t* plane, int64_t stride, int32_t out_height, int32_t out_width, int32_t columns,
              const int32_t* column, const float* column_weight, int32_t rows, const int32_t* row,
              const float* row_weight, uint8_t* out) {
  const size_t wide = static_cast<size_t>(out_width);
  const int64_t taps = static_cast<int64_t>(out_height) * rows;
  if (taps == 0 || out_width == 0) return;
  const int32_t first = *std::min_element(row, row + taps), last = *std::max_element(row, row + taps);
  std::vector<float> narrowed(wide * static_cast<size_t>(last - first + 1)), sums(wide);
  // Column by column of weights: then all reads but those of the picture are contiguous.
  std::vector<int32_t> places(wide * columns);
  std::vector<float> weights(wide * columns);
  for (int32_t x = 0; x < out_width; x++)
    for (int32_t k = 0; k < columns; k++) {
      places[wide * k + x] = column[static_cast<int64_t>(x) * columns + k];
      weights[wide * k + x] = column_weight[static_cast<int64_t>(x) * columns + k];
    }
  for (int32_t y = first; y <= last; y++) {
    const uint8_t* from = plane + y * stride;
    float* to = &narrowed[wide * static_cast<size_t>(y - first)];
    for (int32_t k = 0; k < columns; k++) add_gathered(from, &places[wide * k], &weights[wide * k], out_width, to);
  }
  for (int32_t y = 0; y < out_height; y++) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int32_t k = 0; k < rows; k++) {
      const float weight = row_weight[static_cast<int64_t>(y) * rows + k];
      const int32_t from = row[static_cast<int64_t>(y) * rows + k] - first;
      if (weight != 0) add_times(&narrowed[wide * static_cast<size_t>(from)], out_width, weight, sums.data());
    }
    uint8_t* to = out + static_cast<int64_t>(y) * out_width;
    for (int32_t x = 0; x < out_width; x++) {
      const float value = rintf(sums[x]);
      to[x] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
  }
}

int64_t steps(int, const uint8_t* picture, int32_t width, int64_t number, const int32_t* y, const int32_t* x,
              const int32_t* sign, const int32_t* step_of, uint8_t* alive, int32_t* stood, int32_t* life, int32_t* now,
              int64_t* total) {
  const int64_t beside = step_y * static_cast<int64_t>(width) + step_x;
  int64_t living = 0, sum = 0;
  for (int64_t i = 0; i < number; i++) {
    const uint8_t* at = picture + static_cast<int64_t>(y[i]) * width + x[i];
    const int32_t step = (at[beside] - at[0]) * sign[i];
    const int32_t lives = 2 * step >= step_of[i];
    alive[i] = static_cast<uint8_t>(lives);
    stood[i] += lives;
    life[i] += lives;
    living += lives;
    sum += step;
    if (now) now[i] = step;
  }
  *total = sum;
  return living;
}

int64_t contrast(int, const uint8_t* plane, int64_t stride, int64_t number, const int64_t* y, const int64_t* x,
                 const int64_t* other_y, const int64_t* other_x) {
  int64_t sum = 0;
  for (int64_t i = 0; i < number; i++) sum += plane[y[i] * stride + x[i]] - plane[other_y[i] * stride + other_x[i]];
  return sum;
}

}  // namespace

namespace tamis {

const Raster& TAMIS_RASTER() {
  static const Raster table = {halve, strokes, pieces, rows, components, depth, merge, blur, resample, steps, contrast};
  return table;
}

}  // namespace tamis
