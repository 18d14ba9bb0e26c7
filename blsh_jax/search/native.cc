// The exact Hamming search of hamming.py for CPUs: the same neighbours, bit for bit, by a
// compiler's vector instructions and without hand-overs between XLA's kernels. `blsh native`
// builds it for the processor that it runs on, so the compiler knows what that can do.
//
// Codes are taken in the order of their indices, kBlock of them at a time. A block is laid out in
// planes: a plane holds the same few bits of all its codes, a byte for each code. Then every
// query of a task counts its distances to the block, which is in the L1 cache. With AVX-512
// (BITALG) a plane has 8 bits, which an instruction counts; with AVX2 it has 4, which a table of
// 16 counts is asked for. A distance below the K-th of those before is kept, so of equal ones the
// first are. One or two queries do without planes, as do all queries on other processors: they
// read one code after another.
//
// Letters: N codes, Q queries, K neighbours, L bits, W words of 32 bits.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Key = uint64_t;  // a distance, and below it an index: of equal distances the first is smaller

constexpr int kSpare = 64;             // codes that are looked at before what is kept is cut down
constexpr int64_t kQueries = 128;      // of a task, at most; what they keep fits in the L2 cache
constexpr int64_t kKept = 1 << 18;     // keys of a task, at most, unless K is greater
constexpr int64_t kFewQueries = 3;     // fewer do without planes
constexpr int64_t kAlone = 1 << 20;    // words times queries that take one thread about 100 us
constexpr int64_t kRange = 1 << 13;    // codes of a task, at least, where they are cut
constexpr int64_t kLeastQueries = 16;  // of a task, where all could be one
constexpr int kSpins = 4000;           // about 100 us

// The nearest codes that one query has met. How often it met each distance tells the K-th of
// them.
struct Nearest {
  Key* keys;
  uint32_t* counts;  // of the keys at each distance
  int64_t k, capacity, count = 0, below = 0;  // below the bound
  uint32_t bound;                             // the K-th distance: those below it are kept

  void Add(uint32_t distance, int64_t index) {
    if (distance >= bound) return;
    keys[count++] = Key{distance} << 32 | index;
    ++counts[distance];
    for (++below; below >= k; below -= counts[bound]) --bound;
  }
  // Of those at the bound the first stay, as many as there are too few below it.
  void CutDown() {
    int64_t kept = 0, at_bound = k - below;
    for (int64_t i = 0; i < count; ++i) {
      keys[kept] = keys[i];
      const uint32_t distance = keys[i] >> 32;
      kept += distance < bound || (distance == bound && at_bound-- > 0);
    }
    count = kept;
  }
  void MakeRoom() {
    if (count + kSpare > capacity) CutDown();
  }
};

struct Problem {
  const uint32_t *queries, *codes;
  int64_t num_queries, size, words, k, num_bits;

  int64_t capacity() const { return std::min(2 * k, size) + kSpare; }
  int64_t used() const { return (num_bits + 31) / 32; }
  uint32_t mask(int64_t word) const {
    const int64_t rest = num_bits - 32 * word;
    return rest < 32 ? (1u << rest) - 1 : ~0u;
  }
};

// One code after another; kWords is the number of words in use, or 0 for any.
template <int kWords>
void ScanCodes(const Problem& p, const uint32_t* query, int64_t begin, int64_t end,
               Nearest& nearest) {
  const int64_t used = kWords ? kWords : p.used(), pairs = (used - 1) / 2, stride = p.words;
  const uint64_t mask = used % 2 ? p.mask(used - 1) : uint64_t{p.mask(used - 1)} << 32 | ~0u;
  const auto word = [used](const uint32_t* of, int64_t pair) {
    uint64_t both = of[2 * pair];
    if (2 * pair + 1 < used) std::memcpy(&both, of + 2 * pair, 8);
    return both;
  };
  for (int64_t first = begin; first < end; first += kSpare) {
    nearest.MakeRoom();
    const int64_t last = std::min(first + kSpare, end);
    const uint32_t bound = nearest.bound;
    const uint32_t* code = p.codes + first * stride;
#pragma GCC unroll 4
    for (int64_t n = first; n < last; ++n, code += stride) {
      uint32_t distance = __builtin_popcountll((word(code, pairs) ^ word(query, pairs)) & mask);
      for (int64_t pair = 0; pair < pairs; ++pair)
        distance += __builtin_popcountll(word(code, pair) ^ word(query, pair));
      if (__builtin_expect(distance < bound, 0)) nearest.Add(distance, n);
    }
  }
}

void Scan(const Problem& p, const uint32_t* query, int64_t begin, int64_t end, Nearest& nearest) {
  switch (p.used()) {
    case 1: return ScanCodes<1>(p, query, begin, end, nearest);
    case 2: return ScanCodes<2>(p, query, begin, end, nearest);
    case 3: return ScanCodes<3>(p, query, begin, end, nearest);
    case 4: return ScanCodes<4>(p, query, begin, end, nearest);
    case 5: return ScanCodes<5>(p, query, begin, end, nearest);
    case 6: return ScanCodes<6>(p, query, begin, end, nearest);
    case 8: return ScanCodes<8>(p, query, begin, end, nearest);
    case 10: return ScanCodes<10>(p, query, begin, end, nearest);
    default: return ScanCodes<0>(p, query, begin, end, nearest);
  }
}

#if defined(__AVX512BITALG__) && defined(__AVX512BW__)
#define BLSH_PLANES
constexpr char kInstructions[] = "AVX-512";
constexpr int kBits = 8, kLanes = 64, kVectors = 8, kBlock = kVectors * kLanes;
using Vector = __m512i;

Vector Load(const void* from) { return _mm512_loadu_si512(from); }
void Store(void* to, Vector vector) { _mm512_storeu_si512(to, vector); }
Vector Low(Vector a, Vector b) { return _mm512_unpacklo_epi8(a, b); }
Vector High(Vector a, Vector b) { return _mm512_unpackhi_epi8(a, b); }

// 16 bytes of every 16th of 64 rows.
Vector LoadRows(const uint8_t* row, int64_t stride) {
  const auto part = [=](int i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 16 * i * stride));
  };
  Vector rows = _mm512_castsi128_si512(part(0));
  rows = _mm512_inserti32x4(rows, part(1), 1);
  rows = _mm512_inserti32x4(rows, part(2), 2);
  return _mm512_inserti32x4(rows, part(3), 3);
}

void StorePlanes(Vector bytes, uint32_t mask, uint8_t* planes) {
  Store(planes, _mm512_and_si512(bytes, _mm512_set1_epi8(mask)));
}

// Distances of a query, kBits of its bits for each plane, to the codes of a block, if one at
// least is below a bound; whether one is.
inline bool Count(const uint8_t* planes, const uint8_t* asked, int64_t num_planes, uint32_t bound,
                  uint8_t* distances) {
  Vector sums[kVectors] = {};
  for (int64_t i = 0; i < num_planes; ++i, planes += kBlock) {
    const Vector query = _mm512_set1_epi8(asked[i]);
    for (int v = 0; v < kVectors; ++v) {
      const Vector differing = _mm512_xor_si512(query, Load(planes + 64 * v));
      sums[v] = _mm512_add_epi8(sums[v], _mm512_popcnt_epi8(differing));
    }
  }
  Vector least = sums[0];
  for (int v = 1; v < kVectors; ++v) least = _mm512_min_epu8(least, sums[v]);
  if (!_mm512_cmplt_epu8_mask(least, _mm512_set1_epi8(bound))) return false;
  for (int v = 0; v < kVectors; ++v) Store(distances + 64 * v, sums[v]);
  return true;
}

// Which of 64 distances are below a bound, which fits their type.
uint64_t Below(const uint8_t* distances, uint32_t bound) {
  return _mm512_cmplt_epu8_mask(Load(distances), _mm512_set1_epi8(bound));
}
uint64_t Below(const uint16_t* distances, uint32_t bound) {
  const Vector limit = _mm512_set1_epi16(bound);
  const uint64_t low = _mm512_cmplt_epu16_mask(Load(distances), limit);
  return low | uint64_t{_mm512_cmplt_epu16_mask(Load(distances + 32), limit)} << 32;
}

#elif defined(__AVX2__)
#define BLSH_PLANES
constexpr char kInstructions[] = "AVX2";
constexpr int kBits = 4, kLanes = 32, kVectors = 8, kBlock = kVectors * kLanes;
using Vector = __m256i;

Vector Load(const void* from) { return _mm256_loadu_si256(static_cast<const Vector*>(from)); }
void Store(void* to, Vector vector) { _mm256_storeu_si256(static_cast<Vector*>(to), vector); }
Vector Low(Vector a, Vector b) { return _mm256_unpacklo_epi8(a, b); }
Vector High(Vector a, Vector b) { return _mm256_unpackhi_epi8(a, b); }

// 16 bytes of every 16th of 32 rows.
Vector LoadRows(const uint8_t* row, int64_t stride) {
  const auto half = reinterpret_cast<const __m128i*>(row + 16 * stride);
  const Vector rows =
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
  return _mm256_inserti128_si256(rows, _mm_loadu_si128(half), 1);
}

void StorePlanes(Vector bytes, uint32_t mask, uint8_t* planes) {
  bytes = _mm256_and_si256(bytes, _mm256_set1_epi8(mask));
  const Vector low = _mm256_set1_epi8(15);
  Store(planes, _mm256_and_si256(bytes, low));
  if (mask > 15) Store(planes + kBlock, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low));
}

// How many bits a value differs in from all others.
struct Tables {
  alignas(16) uint8_t counts[16][16];
  Tables() {
    for (int a = 0; a < 16; ++a)
      for (int b = 0; b < 16; ++b) counts[a][b] = __builtin_popcount(a ^ b);
  }
};
const Tables kTables;

inline bool Count(const uint8_t* planes, const uint8_t* asked, int64_t num_planes, uint32_t bound,
                  uint8_t* distances) {
  Vector sums[kVectors] = {};
  for (int64_t i = 0; i < num_planes; ++i, planes += kBlock) {
    const Vector table = _mm256_broadcastsi128_si256(
        *reinterpret_cast<const __m128i*>(kTables.counts[asked[i]]));
    for (int v = 0; v < kVectors; ++v) {
      const Vector counts = _mm256_shuffle_epi8(table, Load(planes + 32 * v));
      sums[v] = _mm256_add_epi8(sums[v], counts);
    }
  }
  Vector least = sums[0];
  for (int v = 1; v < kVectors; ++v) least = _mm256_min_epu8(least, sums[v]);
  const Vector below = _mm256_min_epu8(least, _mm256_set1_epi8(bound - 1));
  if (!_mm256_movemask_epi8(_mm256_cmpeq_epi8(below, least))) return false;
  for (int v = 0; v < kVectors; ++v) Store(distances + 32 * v, sums[v]);
  return true;
}

uint64_t Below(const uint8_t* distances, uint32_t bound) {
  const Vector limit = _mm256_set1_epi8(bound - 1);
  uint64_t below = 0;
  for (int half = 0; half < 2; ++half) {
    const Vector found = Load(distances + 32 * half);
    const Vector least = _mm256_min_epu8(found, limit);
    const uint32_t mask = _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, found));
    below |= uint64_t{mask} << 32 * half;
  }
  return bound ? below : 0;
}
uint64_t Below(const uint16_t* distances, uint32_t bound) {
  const Vector limit = _mm256_set1_epi16(bound - 1);
  uint64_t below = 0;
  for (int half = 0; half < 2; ++half) {
    Vector found[2];
    for (int i = 0; i < 2; ++i) {
      const Vector wide = Load(distances + 32 * half + 16 * i);
      found[i] = _mm256_cmpeq_epi16(_mm256_min_epu16(wide, limit), wide);
    }
    const Vector packed = _mm256_packs_epi16(found[0], found[1]);
    const uint32_t mask = _mm256_movemask_epi8(_mm256_permute4x64_epi64(packed, 0xD8));
    below |= uint64_t{mask} << 32 * half;
  }
  return bound ? below : 0;
}

#else
constexpr char kInstructions[] = "plain C++";
#endif

#ifdef BLSH_PLANES

constexpr int64_t kPart = 248 / kBits;     // planes whose counts add up to less than a byte holds
constexpr int64_t kMostBits = UINT16_MAX;  // of a code

int64_t NumPlanes(const Problem& p) { return (p.num_bits + kBits - 1) / kBits; }

// The planes (L / kBits, kBlock) of kBlock rows of codes, behind which 16 bytes can be read.
void LayOut(const Problem& p, const uint32_t* codes, uint8_t* planes) {
  const int64_t stride = 4 * p.words, num_bytes = (p.num_bits + 7) / 8;
  const auto rows = reinterpret_cast<const uint8_t*>(codes);
  for (int64_t first = 0; first < num_bytes; first += 16) {
    // Where a row ends before 16 further bytes do, some of those before are read once more.
    const int64_t start = std::min(first, std::max<int64_t>(stride - 16, 0));
    const int64_t end = std::min(first + 16, num_bytes);
    for (int v = 0; v < kVectors; ++v) {
      Vector matrix[16], turned[16];
      for (int i = 0; i < 16; ++i)
        matrix[i] = LoadRows(rows + (v * kLanes + i) * stride + start, stride);
      for (int round = 0; round < 4; ++round) {  // shuffled four times, rows are columns
        for (int i = 0; i < 8; ++i) {
          turned[2 * i] = Low(matrix[i], matrix[i + 8]);
          turned[2 * i + 1] = High(matrix[i], matrix[i + 8]);
        }
        std::copy_n(turned, 16, matrix);
      }
      for (int64_t byte = first; byte < end; ++byte) {
        const uint32_t mask = p.mask(byte / 4) >> 8 * (byte % 4) & 255;
        StorePlanes(matrix[byte - start], mask, planes + byte * 8 / kBits * kBlock + v * kLanes);
      }
    }
  }
}

// The least bound that k of the distances of a block are below.
template <class Distance>
uint32_t Enough(const Distance* distances, int64_t k) {
  uint32_t low = 0, high = static_cast<Distance>(~0);
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    int64_t below = 0;
    for (int n = 0; n < kBlock; n += 64)
      below += __builtin_popcountll(Below(distances + n, middle));
    (below < k ? low : high) = middle;
  }
  return high;
}

template <class Distance>
void Keep(const Distance* distances, int64_t begin, int64_t count, Nearest& nearest) {
  if (nearest.count == 0 && count == kBlock && nearest.k < kBlock)
    nearest.bound = Enough(distances, nearest.k);
  for (int64_t first = 0; first < count; first += 64) {
    nearest.MakeRoom();
    uint64_t below = Below(distances + first, nearest.bound);
    if (count - first < 64) below &= (uint64_t{1} << (count - first)) - 1;
    for (; below; below &= below - 1) {
      const int64_t n = first + __builtin_ctzll(below);
      nearest.Add(distances[n], begin + n);
    }
  }
}

void ScanPlanes(const Problem& p, int64_t first_query, int64_t begin, int64_t end,
                std::vector<Nearest>& nearest) {
  const int64_t num_planes = NumPlanes(p);
  std::vector<uint8_t> asked(nearest.size() * num_planes), planes(num_planes * kBlock);
  std::vector<uint32_t> last_codes;
  uint8_t* part = asked.data();
  for (size_t q = 0; q < nearest.size(); ++q) {
    const uint32_t* query = p.queries + (first_query + q) * p.words;
    for (int64_t bit = 0; bit < p.num_bits; bit += kBits)
      *part++ = (query[bit / 32] & p.mask(bit / 32)) >> bit % 32 & ((1 << kBits) - 1);
  }
  for (int64_t n = begin; n < end; n += kBlock) {
    const int64_t count = std::min<int64_t>(kBlock, end - n);
    const uint32_t* codes = p.codes + n * p.words;
    if (n + kBlock >= p.size) {  // behind the last codes nothing can be read
      last_codes.resize(kBlock * p.words + 4);
      std::copy_n(codes, count * p.words, last_codes.begin());
      codes = last_codes.data();
    }
    LayOut(p, codes, planes.data());
    part = asked.data();
    for (Nearest& mine : nearest) {
      uint8_t counts[kBlock];
      if (p.num_bits < UINT8_MAX) {
        if (Count(planes.data(), part, num_planes, mine.bound, counts))
          Keep(counts, n, count, mine);
      } else {
        uint16_t sums[kBlock] = {};
        for (int64_t i = 0; i < num_planes; i += kPart) {
          Count(&planes[i * kBlock], part + i, std::min(kPart, num_planes - i), UINT8_MAX, counts);
          for (int j = 0; j < kBlock; ++j) sums[j] += counts[j];
        }
        Keep(sums, n, count, mine);
      }
      part += num_planes;
    }
  }
}

#endif

// The K nearest of codes [begin, end), or all of these if they are fewer, of some queries, in
// order.
void SearchPart(const Problem& p, int64_t first_query, int64_t num_queries, int64_t begin,
                int64_t end, Key* found) {
  const int64_t capacity = p.capacity();
  std::unique_ptr<Key[]> keys(new Key[num_queries * capacity]);
  std::vector<uint32_t> counts(num_queries * (p.num_bits + 1));
  std::vector<Nearest> nearest(num_queries);
  for (int64_t q = 0; q < num_queries; ++q) {
    nearest[q] = {keys.get() + q * capacity, &counts[q * (p.num_bits + 1)], p.k, capacity};
    nearest[q].bound = p.num_bits + 1;
  }
#ifdef BLSH_PLANES
  const bool planes = num_queries >= kFewQueries && p.num_bits < kMostBits;
  if (planes) ScanPlanes(p, first_query, begin, end, nearest);
#else
  const bool planes = false;
#endif
  for (int64_t q = 0; q < num_queries; ++q) {
    if (!planes) Scan(p, p.queries + (first_query + q) * p.words, begin, end, nearest[q]);
    nearest[q].CutDown();
    std::sort(nearest[q].keys, nearest[q].keys + nearest[q].count);
    Key* end_of_found = std::copy_n(nearest[q].keys, nearest[q].count, found + q * p.k);
    std::fill(end_of_found, found + (q + 1) * p.k, ~Key{0});
  }
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Runs tasks on the calling thread and on others of XLA's as they come. It waits only for tasks
// that have begun, so it does not matter where it is called; at first awake, as being woken takes
// long.
template <class Run>
void InParallel(ffi::ThreadPool pool, int64_t num_tasks, const Run& run) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto state = std::make_shared<State>();
  auto work = [state, num_tasks, &run] {
    for (int64_t task; (task = state->next++) < num_tasks;) {
      run(task);
      if (++state->done == num_tasks) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->finished.notify_all();
      }
    }
  };
  const int64_t others = std::min(pool.num_threads(), num_tasks) - 1;
  for (int64_t i = 0; i < others; ++i) pool.Schedule(std::function<void()>(work));
  work();
  for (int i = 0; i < kSpins && state->done < num_tasks; ++i) Pause();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done == num_tasks; });
}

void Search(ffi::ThreadPool pool, const Problem& p, int32_t* distances, int32_t* indices) {
  const int64_t threads = std::max<int64_t>(pool.num_threads(), 1), tasks = 2 * threads;
  const bool alone = threads == 1 || p.num_queries * p.size * p.used() < kAlone;
  const int64_t memory = p.capacity() + p.num_bits / 2;
  int64_t most = std::min(kQueries, std::max<int64_t>(kKept / memory, 1)), ranges = 1;
  if (!alone && p.num_queries < tasks * most) {  // too few to keep all threads busy
    if (p.size >= tasks * kRange)
      ranges = tasks;  // the codes are cut, too
    else
      most = std::min(most, std::max((p.num_queries + tasks - 1) / tasks, kLeastQueries));
  }
  const int64_t blocks = (p.num_queries + most - 1) / most;
  const int64_t range = (p.size + ranges - 1) / ranges;
  std::unique_ptr<Key[]> found(new Key[ranges * p.num_queries * p.k]);
  auto run = [&](int64_t task) {
    const int64_t part = task % ranges, first = task / ranges * most;
    const int64_t count = std::min(most, p.num_queries - first), begin = part * range;
    Key* mine = found.get() + (part * p.num_queries + first) * p.k;
    SearchPart(p, first, count, std::min(begin, p.size), std::min(begin + range, p.size), mine);
  };
  if (alone) {
    for (int64_t task = 0; task < blocks; ++task) run(task);
  } else {
    InParallel(pool, blocks * ranges, run);
  }
  std::vector<Key> merged(ranges * p.k);
  for (int64_t q = 0; q < p.num_queries; ++q) {
    const Key* nearest = found.get() + q * p.k;
    if (ranges > 1) {
      for (int64_t part = 0; part < ranges; ++part)
        std::copy_n(nearest + part * p.num_queries * p.k, p.k, merged.begin() + part * p.k);
      std::partial_sort(merged.begin(), merged.begin() + p.k, merged.end());
      nearest = merged.data();
    }
    for (int64_t i = 0; i < p.k; ++i) {
      distances[q * p.k + i] = nearest[i] >> 32;
      indices[q * p.k + i] = static_cast<uint32_t>(nearest[i]);
    }
  }
}

// Queries (..., Q, W) in codes (..., N, W), whose leading axes, from vmap, are as long as those
// of the results (..., Q, K), or 1.
ffi::Error Hamming(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> queries, ffi::Buffer<ffi::U32> codes,
                   ffi::ResultBuffer<ffi::S32> distances, ffi::ResultBuffer<ffi::S32> indices,
                   int64_t num_bits) try {
  const auto asked = queries.dimensions(), stored = codes.dimensions();
  const auto wanted = distances->dimensions();
  const size_t axes = wanted.size() - 2;
  Problem p{};
  p.num_queries = asked[axes];
  p.size = stored[axes];
  p.words = stored[axes + 1];
  p.k = wanted[axes + 1];
  p.num_bits = num_bits;
  int64_t searches = 1, dictionaries = 1, sets = 1;
  for (size_t axis = 0; axis < axes; ++axis) {
    searches *= wanted[axis];
    dictionaries *= stored[axis];
    sets *= asked[axis];
  }
  if (dictionaries == 1 && sets == searches) {  // one search of all
    p.num_queries *= searches;
    searches = 1;
  }
  for (int64_t i = 0; i < searches; ++i) {
    int64_t query = 0, dictionary = 0, rest = i, past = searches;
    for (size_t axis = 0; axis < axes; ++axis) {
      past /= wanted[axis];
      if (asked[axis] > 1) query = query * asked[axis] + rest / past;
      if (stored[axis] > 1) dictionary = dictionary * stored[axis] + rest / past;
      rest %= past;
    }
    p.queries = queries.typed_data() + query * p.num_queries * p.words;
    p.codes = codes.typed_data() + dictionary * p.size * p.words;
    const int64_t place = i * p.num_queries * p.k;
    Search(pool, p, distances->typed_data() + place, indices->typed_data() + place);
  }
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "the search is out of memory");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(blsh_hamming, Hamming,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Attr<int64_t>("num_bits"));

extern "C" const char* blsh_instructions() { return kInstructions; }
