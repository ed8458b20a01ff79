/*
 * The row of a codebook that is nearest to some values, exactly.
 *
 * What a row costs beyond the least possible is a sum over its four options, each part ≥ 0. Often
 * the options that are best one by one are a row: done. Otherwise branch and bound over options 0
 * and 1, where the sum so far is the bound; what options 2 and 3 cost together is a table.
 *
 * Where signs must be even and are not, the value is flipped for which that alone costs least: the
 * joint optimum over eight choices is hardly better.
 */
#include "quant/q_book.h"
#include "quant/q_vec.h"

#include <math.h>

/* What the levels cost for four values beyond the best, and which is best. */
struct costs {
    vec over[8], least;
    vec_mask best;
};

static inline __attribute__((always_inline)) struct costs
level_costs(const float *level, int levels, float shift, vec u, vec w)
{
    struct costs c;
    c.best = (vec_mask){0, 0, 0, 0};
    for (int l = 0; l < levels; l++) {
        vec d = u - vec_all(level[l] + shift);
        c.over[l] = w * d * d;
        if (l == 0) {
            c.least = c.over[0];
        } else {
            vec_mask m = c.over[l] < c.least;
            c.least = vec_choose(m, c.over[l], c.least);
            c.best = (m & l) | (~m & c.best);
        }
    }
    for (int l = 0; l < levels; l++)
        c.over[l] -= c.least;
    return c;
}

/* Changes the sign of one of eight values; returns where: lane × 2 + half. */
static inline __attribute__((always_inline)) int
flip(const float *level, int levels, struct costs half[2], const vec u[2], const vec w[2])
{
    float least = INFINITY;
    int at = 0;
    for (int h = 0; h < 2; h++) {
        vec d = u[h] + vec_all(level[0]), more = w[h] * d * d - half[h].least;
        for (int i = 0; i < 4; i++)
            if (more[i] < least) {
                least = more[i];
                at = 2 * i + h;
            }
    }
    struct costs *c = &half[at & 1];
    int i = at >> 1;
    float v = u[at & 1][i], weight = w[at & 1][i], base = v + level[0];
    c->best[i] = 0;
    for (int l = 0; l < levels; l++) {
        float d = v + level[l];
        c->over[l][i] = weight * (d * d - base * base);
    }
    return at;
}

/* The cheapest row: part[o] has what option o costs in each of the four places, best[] where it
   costs nothing. */
static inline __attribute__((always_inline)) void
search(const struct q_book *book, int radix, const vec *part, const int best[4], uint8_t option[4])
{
    int a = radix * best[0] + best[1], b = radix * best[2] + best[3];
    if (!(book->member[2 * a + b / 64] >> b % 64 & 1)) {
        float second[84], last[12] = {0}, least = INFINITY;
        for (int o = 0; o < radix; o++)
            last[o] = part[o][3];
        for (int o = 0; o < radix; o++) /* stores reach beyond, the next overwrites that */
            for (int k = 0; k < radix; k += 4)
                vec_store(second + radix * o + k, vec_all(part[o][2]) + vec_load(last + k));
        int row = a;
        for (int k = book->first[row]; k < book->first[row + 1]; k++)
            if (second[book->second[k]] < least) {
                least = second[book->second[k]];
                b = book->second[k];
            }
        for (int o = 0; o < radix; o++) {
            if (!(part[o][0] < least))
                continue;
            for (int p = 0; p < radix; p++) {
                float sum = part[o][0] + part[p][1];
                if (!(sum < least))
                    continue;
                row = radix * o + p;
                for (int k = book->first[row]; k < book->first[row + 1]; k++) {
                    float cost = sum + second[book->second[k]];
                    if (cost < least) {
                        least = cost;
                        a = row;
                        b = book->second[k];
                    }
                }
            }
        }
    }
    option[0] = (uint8_t)(a / radix);
    option[1] = (uint8_t)(a % radix);
    option[2] = (uint8_t)(b / radix);
    option[3] = (uint8_t)(b % radix);
}

static void nearest_pairs(const struct q_book *book, const vec u[2], const vec w[2], float shift,
                          bool odd, struct q_pick *pick, float *value)
{
    /* the first and the second of each pair */
    vec du[2] = {__builtin_shufflevector(u[0], u[1], 0, 2, 4, 6),
                 __builtin_shufflevector(u[0], u[1], 1, 3, 5, 7)};
    vec dw[2] = {__builtin_shufflevector(w[0], w[1], 0, 2, 4, 6),
                 __builtin_shufflevector(w[0], w[1], 1, 3, 5, 7)};
    struct costs half[2] = {level_costs(book->level, 3, shift, du[0], dw[0]),
                            level_costs(book->level, 3, shift, du[1], dw[1])};
    pick->flipped = (int8_t)(odd ? flip(book->level, 3, half, du, dw) : -1);
    vec part[9];
    int best[4];
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            part[3 * i + k] = half[0].over[i] + half[1].over[k];
    for (int i = 0; i < 4; i++)
        best[i] = 3 * half[0].best[i] + half[1].best[i];
    search(book, 9, part, best, pick->option);
    for (int i = 0; i < 4; i++) {
        value[2 * i] = book->level[pick->option[i] / 3] + shift;
        value[2 * i + 1] = book->level[pick->option[i] % 3] + shift;
    }
}

static void nearest_singles(const struct q_book *book, const vec u[2], const vec w[2], bool odd,
                            struct q_pick *pick, float *value)
{
    struct costs half[2] = {level_costs(book->level, 8, 0, u[0], w[0]),
                            level_costs(book->level, 8, 0, u[1], w[1])};
    pick->flipped = -1;
    if (odd) {
        int at = flip(book->level, 8, half, u, w);
        pick->flipped = (int8_t)((at & 1) * 4 + at / 2);
    }
    for (int h = 0; h < 2; h++) {
        int best[4];
        memcpy(best, &half[h].best, sizeof(best));
        search(book, 8, half[h].over, best, pick->option + 4 * h);
    }
    for (int i = 0; i < 8; i++)
        value[i] = book->level[pick->option[i]];
}

void q_book_nearest(const struct q_book *book, const float *x, const float *w, float inverse,
                    float shift, bool odd, struct q_pick *pick, float *value)
{
    vec u[2] = {vec_load(x) * vec_all(inverse), vec_load(x + 4) * vec_all(inverse)};
    vec v[2] = {vec_load(w), vec_load(w + 4)};
    if (book->radix == 9)
        nearest_pairs(book, u, v, shift, odd, pick, value);
    else
        nearest_singles(book, u, v, odd, pick, value);
    if (pick->flipped >= 0)
        value[pick->flipped] = -value[pick->flipped];
}

unsigned q_book_code(const struct q_book *book, const uint8_t option[4])
{
    int a = book->radix * option[0] + option[1], b = book->radix * option[2] + option[3];
    int k = book->first[a];
    while (k < book->first[a + 1] - 1 && book->second[k] != b)
        k++;
    return book->code[k];
}
