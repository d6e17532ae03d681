/* The sparse step on a CPU: what torch's own operators need several passes or a sort for.

   Shapes: b rows of a batch, s latents, d width, k kept latents a row, n prefixes. Matrices are row-major and dense.

   A kernel does a part of its work, rows or latents or columns [begin, end), so that threads share it; what it writes
   does not depend on how the parts are cut. Values are compared as integers: floats of 0 and more keep their order as
   such, those below 0 come after them in no order, and what is not a number comes first. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD 8  /* rows of a table that are asked for before they are used */
#define ASKED 32 /* values of them: what follows the processor asks for by itself, and the rest would be in its way */
#define BLOCK 128 /* values of a row that are looked at together, most of which hold nothing */

static inline int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline int32_t key_of(float value) {
    return value != value ? INT32_MAX : bits_of(value);
}

static inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }

static inline void prefetch_row(const float *row, int64_t d) {
    for (int64_t i = 0; i < smaller(d, ASKED); i += 16) __builtin_prefetch(row + i);
}

static inline float dot(const float *restrict a, const float *restrict b, int64_t d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) sum += a[i] * b[i];
    return sum;
}

static inline void add_scaled(float *restrict to, const float *restrict row, float factor, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) to[i] += factor * row[i];
}

/* row = factor · row + to_come, which may be left out. */
static inline void add_weighted(float *restrict row, float factor, const float *restrict to_come, int64_t d) {
#pragma omp simd
    for (int64_t i = 0; i < d; i++) row[i] = factor * row[i] + (to_come ? to_come[i] : 0);
}

/* The dot products of x with four rows at a time: one would wait for itself at every addition. */
static inline void four_dots(const float *restrict x, const float *const *rows, int64_t d, float *dots) {
    const float *a = rows[0], *b = rows[1], *c = rows[2], *e = rows[3];
    float first = 0, second = 0, third = 0, fourth = 0;
#pragma omp simd reduction(+ : first, second, third, fourth)
    for (int64_t i = 0; i < d; i++) {
        first += x[i] * a[i];
        second += x[i] * b[i];
        third += x[i] * c[i];
        fourth += x[i] * e[i];
    }
    dots[0] = first, dots[1] = second, dots[2] = third, dots[3] = fourth;
}

/* Four rows added one after the other, as `add_scaled` would, with one pass over what they are added to. */
static inline void add_four(float *restrict to, const float *const *rows, const float *factors, int64_t d) {
    const float *a = rows[0], *b = rows[1], *c = rows[2], *e = rows[3];
    float first = factors[0], second = factors[1], third = factors[2], fourth = factors[3];
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        float sum = to[i];
        sum += first * a[i];
        sum += second * b[i];
        sum += third * c[i];
        sum += fourth * e[i];
        to[i] = sum;
    }
}

/* dots[i] = x · table[indices[i]] for i < n; of the `known` indices those to come are asked for ahead. */
static void gather_dots(const float *x, const float *table, const int64_t *indices, int64_t n, int64_t known, int64_t d,
                        float *dots) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float *rows[4];
        for (int64_t j = 0; j < 4; j++) {
            rows[j] = table + indices[i + j] * d;
            if (i + j + AHEAD < known) prefetch_row(table + indices[i + j + AHEAD] * d, d);
        }
        four_dots(x, rows, d, dots + i);
    }
    for (; i < n; i++) dots[i] = dot(x, table + indices[i] * d, d);
}

/* to += Σ_i sign · factors[i] · table[indices[i]] for i < n. */
static void add_gathered(float *to, const float *table, const int64_t *indices, const float *factors, float sign,
                         int64_t n, int64_t known, int64_t d) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float *rows[4];
        float scaled[4];
        for (int64_t j = 0; j < 4; j++) {
            rows[j] = table + indices[i + j] * d;
            scaled[j] = sign * factors[i + j];
            if (i + j + AHEAD < known) prefetch_row(table + indices[i + j + AHEAD] * d, d);
        }
        add_four(to, rows, scaled, d);
    }
    for (; i < n; i++) add_scaled(to, table + indices[i] * d, sign * factors[i], d);
}

/* ---- selection */

static int64_t count_from(const int32_t *keys, int64_t n, int32_t bar) {
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; i++) count += keys[i] >= bar;
    return count;
}

/* A bar that at least k of n keys reach, and either exactly k do or no higher bar is reached by k. By bisection: it
   counts at the speed of the cache and mispredicts nothing. */
static int32_t bar_of(const int32_t *keys, int64_t n, int64_t k) {
    int32_t least = INT32_MAX, most = INT32_MIN;
#pragma omp simd reduction(min : least) reduction(max : most)
    for (int64_t i = 0; i < n; i++) {
        least = keys[i] < least ? keys[i] : least;
        most = keys[i] > most ? keys[i] : most;
    }
    int64_t low = least, high = (int64_t)most + 1;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        int64_t count = count_from(keys, n, (int32_t)middle);
        if (count == k) return (int32_t)middle;
        if (count > k) low = middle;
        else high = middle;
    }
    return (int32_t)low;
}

/* Places of the k largest of n keys; of equal ones the first. */
static void places_of_largest(const int32_t *keys, int64_t n, int64_t k, int32_t *places) {
    int32_t bar = bar_of(keys, n, k);
    int64_t above = 0, found = 0;
    if (bar < INT32_MAX) above = count_from(keys, n, bar + 1);
    int64_t equal = k - smaller(above, k); /* of those at the bar */
    for (int64_t i = 0; i < n && found < k; i++) {
        int at_bar = keys[i] == bar && equal > 0;
        equal -= at_bar;
        places[found] = (int32_t)i;
        found += keys[i] > bar || at_bar;
    }
}

typedef struct {
    int32_t *keys;       /* [s] of a row */
    int32_t *maxima;     /* [s] of the groups that it is dealt into */
    int32_t *candidates; /* [s] keys */
    int32_t *latents;    /* [s] of the candidates */
    int32_t *places;     /* [s] */
} Scratch;

static int make_scratch(Scratch *scratch, int64_t s) {
    /* apart by no multiple of 4096 bytes, since a processor takes a load for one of what was just stored that far off */
    int64_t apart = (s + 1023) / 1024 * 1024 + 208;
    int32_t *all = malloc(5 * apart * sizeof *all);
    if (!all) return 0;
    *scratch = (Scratch){all, all + apart, all + 2 * apart, all + 3 * apart, all + 4 * apart};
    return 1;
}

/* How many latents a group has, so that maxima and members that have to be looked at one by one take as long. */
static int64_t group_size(int64_t s, int64_t k) {
    int64_t size = 32;
    while (size > 1 && size * size > s / k) size /= 2;
    return size;
}

/* Latents of the k largest of scratch->keys [s] into scratch->places. k groups have maxima of at least the bar of the
   maxima, so all that can be kept reaches it, and lies in a group whose maximum does. */
static void select_latents(Scratch *scratch, int64_t s, int64_t k) {
    int64_t size = group_size(s, k);
    if (size < 2) {
        places_of_largest(scratch->keys, s, k, scratch->places);
        return;
    }
    int64_t groups = (s + size - 1) / size;
    const int32_t *keys = scratch->keys;
    int32_t *restrict maxima = scratch->maxima;
    memcpy(maxima, keys, groups * sizeof *maxima);
    for (int64_t member = 1; member < size; member++) {
        const int32_t *row = keys + member * groups;
        int64_t width = smaller(groups, s - member * groups);
#pragma omp simd
        for (int64_t g = 0; g < width; g++) maxima[g] = row[g] > maxima[g] ? row[g] : maxima[g];
    }
    int32_t bar = bar_of(maxima, groups, k);
    int32_t *restrict candidates = scratch->candidates;
    int32_t *restrict latents = scratch->latents;
    int64_t found = 0;
    for (int64_t g = 0; g < groups; g++) {
        if (maxima[g] < bar) continue;
        for (int64_t latent = g; latent < s; latent += groups) {
            int32_t key = keys[latent];
            candidates[found] = key;
            latents[found] = (int32_t)latent;
            found += key >= bar;
        }
    }
    places_of_largest(candidates, found, k, scratch->places);
    for (int64_t i = 0; i < k; i++) scratch->places[i] = latents[scratch->places[i]];
}

/* The k largest of each row of z [b, s] + bias [s], or those of largest magnitude: values and indices [b, k]. */
int largest(const float *z, const float *bias, int64_t s, int64_t k, int magnitude, float *values, int64_t *indices,
            int64_t begin, int64_t end) {
    Scratch scratch;
    if (!make_scratch(&scratch, s)) return 0;
    int32_t mask = magnitude ? INT32_MAX : -1;
    for (int64_t r = begin; r < end; r++) {
        const float *row = z + r * s;
        int32_t *restrict keys = scratch.keys;
#pragma omp simd
        for (int64_t i = 0; i < s; i++) keys[i] = key_of(row[i] + bias[i]) & mask;
        select_latents(&scratch, s, k);
        for (int64_t i = 0; i < k; i++) {
            int32_t latent = scratch.places[i];
            values[r * k + i] = row[latent] + bias[latent];
            indices[r * k + i] = latent;
        }
    }
    free(scratch.keys);
    return 1;
}

/* x [b, d] − center [d], rounded to the nearest bfloat16, of two equally near to the even one. */
void rounded(const float *x, const float *center, int64_t d, uint16_t *to, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        const float *row = x + r * d;
        uint16_t *restrict out = to + r * d;
#pragma omp simd
        for (int64_t i = 0; i < d; i++) {
            float value = row[i] - center[i];
            uint32_t bits = (uint32_t)bits_of(value);
            uint32_t even = bits + 0x7fff + ((bits >> 16) & 1);
            out[i] = (uint16_t)(value != value ? 0x7fc0 : even >> 16);
        }
    }
}

/* The k largest of x [b, d] · weight [s, d]ᵀ + bias [s] among the c of each row that are largest in a rounded product,
   coarse [b, s] bfloat16 + coarse_bias [s]: values and indices [b, k]. */
int screened(const uint16_t *coarse, const float *coarse_bias, const float *x, const float *weight, const float *bias,
             int64_t s, int64_t d, int64_t c, int64_t k, float *values, int64_t *indices, int64_t begin, int64_t end) {
    Scratch scratch;
    int32_t *kept = malloc(2 * c * sizeof *kept);
    float *exact = malloc(c * sizeof *exact);
    int64_t *candidates = malloc(c * sizeof *candidates);
    int made = kept && exact && candidates && make_scratch(&scratch, s);
    for (int64_t r = begin; made && r < end; r++) {
        const uint16_t *row = coarse + r * s;
        int32_t *restrict keys = scratch.keys;
#pragma omp simd
        for (int64_t i = 0; i < s; i++) keys[i] = key_of(float_of((uint32_t)row[i] << 16) + coarse_bias[i]);
        select_latents(&scratch, s, c);
        for (int64_t i = 0; i < c; i++) {
            candidates[i] = scratch.places[i];
            if (i < AHEAD) prefetch_row(weight + candidates[i] * d, d);
        }
        gather_dots(x + r * d, weight, candidates, c, c, d, exact);
        for (int64_t i = 0; i < c; i++) {
            exact[i] += bias[candidates[i]];
            kept[c + i] = key_of(exact[i]);
        }
        places_of_largest(kept + c, c, k, kept);
        for (int64_t i = 0; i < k; i++) {
            values[r * k + i] = exact[kept[i]];
            indices[r * k + i] = candidates[kept[i]];
        }
    }
    if (made) free(scratch.keys);
    free(kept);
    free(exact);
    free(candidates);
    return made;
}

/* Eight bytes as one number, the first of them its last digits: those that are not 0 are found without looking at each. */
static inline uint64_t eight_flags(const uint8_t *flags) {
    uint64_t eight;
    memcpy(&eight, flags, sizeof eight);
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? __builtin_bswap64(eight) : eight;
}

/* What of z [b, s] + bias [s] does not stay below the floor, row by row: values, infinite where one is not a number, and
   places r · s + latent, into arrays with room for all of rows [begin, end). Returns how many. */
int64_t reaching(const float *z, const float *bias, int64_t s, float floor, float *values, int64_t *places,
                 int64_t begin, int64_t end) {
    int64_t found = 0;
    for (int64_t r = begin; r < end; r++) {
        for (int64_t block = 0; block < s; block += BLOCK) {
            const float *row = z + r * s + block, *beside = bias + block;
            int64_t width = smaller(BLOCK, s - block);
            uint8_t reaches[BLOCK];
            memset(reaches + width, 0, BLOCK - width);
#pragma omp simd
            for (int64_t i = 0; i < width; i++) reaches[i] = !(row[i] + beside[i] < floor);
            for (int64_t part = 0; part < width; part += 8) {
                for (uint64_t those = eight_flags(reaches + part); those; those &= those - 1) {
                    int64_t i = part + __builtin_ctzll(those) / 8;
                    float value = row[i] + beside[i];
                    values[found] = value != value ? INFINITY : value;
                    places[found++] = r * s + block + i;
                }
            }
        }
    }
    return found;
}

/* The k-th largest of n values ≥ 0, 1 ≤ k ≤ n. */
float nth_largest(const float *values, int64_t n, int64_t k) {
    const int32_t *keys = (const int32_t *)values; /* floats of 0 and more are keys as they are */
    int32_t bar = bar_of(keys, n, k), least = INT32_MAX;
#pragma omp simd reduction(min : least)
    for (int64_t i = 0; i < n; i++) least = keys[i] >= bar && keys[i] < least ? keys[i] : least;
    return float_of((uint32_t)least);
}

/* Of n values at ascending places r · s + latent all that are above the bar, and the first `equal` of those at it, into
   arrays with room for all of them. Returns how many. */
int64_t above_bar(const float *values, const int64_t *places, int64_t n, int64_t s, float bar, int64_t equal, float *kept,
                  int64_t *rows, int64_t *latents) {
    int64_t found = 0, row = 0;
    for (int64_t i = 0; i < n; i++) {
        int at_bar = values[i] == bar && equal > 0;
        equal -= at_bar;
        if (!(values[i] > bar || at_bar)) continue;
        while (places[i] >= (row + 1) * s) row++; /* cheaper than to divide */
        kept[found] = values[i];
        rows[found] = row;
        latents[found++] = places[i] - row * s;
    }
    return found;
}

/* ---- entries by row

   Entries of row r are those from starts[r] to starts[r + 1], or, without starts, k of them. */

/* Σ over the entries e of row r of weights[e] · table[indices[e]]: sums [b, d]. */
void bag_sums(const float *weights, const int64_t *indices, const int64_t *starts, int64_t k, const float *table, int64_t d,
              float *sums, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        int64_t first = starts ? starts[r] : r * k, last = starts ? starts[r + 1] : first + k;
        int64_t known = (starts ? starts[end] : end * k) - first;
        memset(sums + r * d, 0, d * sizeof *sums);
        add_gathered(sums + r * d, table, indices + first, weights + first, 1, last - first, known, d);
    }
}

/* rows[r] · table[indices[e]] for the entries e of row r: dots [E]. */
void row_dots(const float *rows, const int64_t *indices, const int64_t *starts, int64_t k, const float *table, int64_t d,
              float *dots, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        int64_t first = starts ? starts[r] : r * k, last = starts ? starts[r + 1] : first + k;
        int64_t known = (starts ? starts[end] : end * k) - first;
        gather_dots(rows + r * d, table, indices + first, last - first, known, d, dots + first);
    }
}

/* ---- entries by latent */

/* Entries [count] in the order of their latents, those of a latent in their own order: order [count], and starts
   [s + 1]. */
void by_latent(const int64_t *indices, int64_t count, int64_t s, int64_t *starts, int64_t *order) {
    memset(starts, 0, (s + 1) * sizeof *starts);
    for (int64_t e = 0; e < count; e++) starts[indices[e] + 1]++;
    for (int64_t l = 0; l < s; l++) starts[l + 1] += starts[l];
    for (int64_t e = 0; e < count; e++) order[starts[indices[e]]++] = e;
    memmove(starts + 1, starts, s * sizeof *starts);
    starts[0] = 0;
}

/* How many of the entries [count] of each latent are not 0: counts [s]. */
void firing_counts(const float *values, const int64_t *indices, int64_t count, int64_t s, int64_t *counts) {
    memset(counts, 0, s * sizeof *counts);
    for (int64_t e = 0; e < count; e++) counts[indices[e]] += values[e] != 0;
}

/* The first latent whose entries begin at `entry` or later. */
static int64_t latent_from(const int64_t *starts, int64_t s, int64_t entry) {
    int64_t low = 0, high = s;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (starts[middle] < entry) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Σ over the entries e of latent l of weights[e] · source[row of e], added to sums [s, d], for the latents that begin among
   entries [begin, end) of `order`, so that parts are as long as each other. Rows are named, or an entry's is its number
   divided by k. */
void latent_sums(const float *weights, const int64_t *order, const int64_t *starts, const int64_t *rows, int64_t k,
                 const float *source, int64_t s, int64_t d, float *sums, int64_t begin, int64_t end) {
    int64_t last = end == starts[s] ? s : latent_from(starts, s, end);
    for (int64_t l = latent_from(starts, s, begin); l < last; l++) {
        float *sum = sums + l * d;
        int64_t i = starts[l], stop = starts[l + 1];
        while (i < stop) {
            const float *those[4];
            float factors[4];
            int64_t some = stop - i < 4 ? 1 : 4;
            for (int64_t j = 0; j < some; j++) {
                int64_t e = order[i + j];
                those[j] = source + (rows ? rows[e] : e / k) * d;
                factors[j] = weights[e];
                if (i + j + AHEAD >= starts[s]) continue;
                int64_t next = order[i + j + AHEAD];
                prefetch_row(source + (rows ? rows[next] : next / k) * d, d);
            }
            if (some == 4) add_four(sum, those, factors, d);
            else add_scaled(sum, those[0], factors[0], d);
            i += some;
        }
    }
}

/* ---- errors */

/* y − x and its square summed over each row: errors [b, d], which may be left out, and sums [b]. Row r of y begins at
   r · stride: a stride of 0 compares all rows with one. */
void row_errors(const float *x, const float *y, int64_t stride, int64_t d, float *errors, float *sums, int64_t begin,
                int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        const float *a = x + r * d, *b = y + r * stride;
        float sum = 0;
        if (errors) {
            float *restrict error = errors + r * d;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < d; i++) {
                error[i] = b[i] - a[i];
                sum += error[i] * error[i];
            }
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < d; i++) sum += (b[i] - a[i]) * (b[i] - a[i]);
        }
        sums[r] = sum;
    }
}

/* ---- nested reconstructions */

/* How much the first p + 1 groups of a row's kept latents miss of it, for every p < n, and the gradient of
   Σ_p weights[p] · error[p].

   Entries of row r are those from starts[r] to starts[r + 1], with values, indices and groups, which ascend within a
   row. Writes errors [b, n]; grad_values of the entries; grad_target [b, d]; onwards [b, n, d], half the gradient by
   what a group adds, less its sign; and bags, which row of onwards each entry belongs to. */
void nested(const float *values, const int64_t *indices, const int64_t *starts, const int64_t *groups, const float *W_dec,
            const float *target, const float *weights, int64_t n, int64_t d, float *errors, float *grad_values,
            float *grad_target, float *onwards, int64_t *bags, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        float *residuals = onwards + r * n * d;
        const float *missed = target + r * d;
        int64_t e = starts[r];
        for (int64_t p = 0; p < n; p++) {
            float *residual = residuals + p * d;
            memcpy(residual, missed, d * sizeof *residual);
            int64_t first = e;
            for (; e < starts[r + 1] && groups[e] == p; e++) bags[e] = r * n + p;
            add_gathered(residual, W_dec, indices + first, values + first, -1, e - first, starts[end] - first, d);
            errors[r * n + p] = weights[p] != 0 ? dot(residual, residual, d) : 0;
            missed = residual;
        }
        const float *later = NULL; /* Σ over the prefixes to come of their weighted residuals */
        for (int64_t p = n - 1; p >= 0; p--) {
            float *residual = residuals + p * d;
            add_weighted(residual, weights[p], later, d);
            later = residual;
            int64_t last = e;
            while (e > starts[r] && groups[e - 1] == p) e--;
            gather_dots(residual, W_dec, indices + e, last - e, last - e, d, grad_values + e);
            for (int64_t i = e; i < last; i++) grad_values[i] *= -2;
        }
        for (int64_t i = 0; i < d; i++) grad_target[r * d + i] = 2 * later[i];
    }
}
