/* Tests: what stands behind "is". One row each. */
#include "text/jinja_vm.h"

#include "base/num.h"

#define TEST(name)                                                                           \
    static int name(struct vm *vm, struct value self, struct value *a, const struct call *c, \
                    struct value *out)

/* The simple ones look at the type only. */
#define TYPE_TEST(name, condition)    \
    TEST(name)                        \
    {                                 \
        *out = value_bool(condition); \
        return 0;                     \
    }

TYPE_TEST(t_defined, self.type != V_UNDEF)
TYPE_TEST(t_undefined, self.type == V_UNDEF)
TYPE_TEST(t_none, self.type == V_NONE)
TYPE_TEST(t_boolean, self.type == V_BOOL)
TYPE_TEST(t_true, self.type == V_BOOL && self.b)
TYPE_TEST(t_false, self.type == V_BOOL && !self.b)
TYPE_TEST(t_integer, self.type == V_INT)
TYPE_TEST(t_float, self.type == V_FLOAT)
TYPE_TEST(t_number, self.type == V_INT || self.type == V_FLOAT || self.type == V_BOOL)
TYPE_TEST(t_string, self.type == V_STR)
TYPE_TEST(t_mapping, self.type == V_DICT)
TYPE_TEST(t_escaped, self.type == V_STR && self.s->markup)
TYPE_TEST(t_iterable, value_iterable(self) || self.type == V_LOOP)
TYPE_TEST(t_sequence, self.type == V_STR || self.type == V_LIST || self.type == V_TUPLE ||
                          self.type == V_DICT || self.type == V_RANGE || self.type == V_UNDEF)
TYPE_TEST(t_callable, self.type == V_FUNC || self.type == V_METHOD || self.type == V_MACRO ||
                          self.type == V_LOOP || self.type == V_JOINER || self.type == V_UNDEF)
TYPE_TEST(t_sameas, value_same(self, a[0]))

static int cased(struct vm *vm, struct value self, const char *method, struct value *out)
{
    struct str *s;
    struct call none = {0};
    bool mutates;
    TRY(value_str_of(vm, self, &s));
    const struct func *f = method_find(value_str(s), method, 7, &mutates);
    return f->fn(vm, value_str(s), NULL, &none, out);
}

TEST(t_lower)
{
    return cased(vm, self, "islower", out);
}

TEST(t_upper)
{
    return cased(vm, self, "isupper", out);
}

/* value % by == want */
static int remainder_is(struct vm *vm, struct value self, struct value by, int64_t want,
                        struct value *out)
{
    struct value r;
    bool eq;
    TRY(op_binary(vm, OP_MOD, self, by, &r));
    TRY(value_eq(vm, r, value_int(want), &eq));
    *out = value_bool(eq);
    return 0;
}

TEST(t_odd)
{
    return remainder_is(vm, self, value_int(2), 1, out);
}

TEST(t_even)
{
    return remainder_is(vm, self, value_int(2), 0, out);
}

TEST(t_divisibleby)
{
    return remainder_is(vm, self, a[0], 0, out);
}

TEST(t_in)
{
    *out = value_bool(false);
    return value_contains(vm, self, a[0], &out->b);
}

TEST(t_eq)
{
    *out = value_bool(false);
    return value_eq(vm, self, a[0], &out->b);
}

TEST(t_ne)
{
    TRY(t_eq(vm, self, a, c, out));
    out->b = !out->b;
    return 0;
}

static int ordered(struct vm *vm, enum order_op op, struct value x, struct value y,
                   struct value *out)
{
    *out = value_bool(false);
    return value_order(vm, op, x, y, &out->b);
}

TEST(t_lt)
{
    return ordered(vm, ORDER_LT, self, a[0], out);
}

TEST(t_le)
{
    return ordered(vm, ORDER_LE, self, a[0], out);
}

TEST(t_gt)
{
    return ordered(vm, ORDER_GT, self, a[0], out);
}

TEST(t_ge)
{
    return ordered(vm, ORDER_GE, self, a[0], out);
}

TEST(t_filter)
{
    if (!value_hashable(self))
        return vm_fail(vm, "unhashable type: '%s'", value_type_name(self));
    *out = value_bool(self.type == V_STR && filter_find(self.s->p, self.s->n));
    return 0;
}

TEST(t_test)
{
    if (!value_hashable(self))
        return vm_fail(vm, "unhashable type: '%s'", value_type_name(self));
    *out = value_bool(self.type == V_STR && test_find(self.s->p, self.s->n));
    return 0;
}

static const struct func tests[] = {
    {"defined", "", t_defined},
    {"undefined", "", t_undefined},
    {"none", "", t_none},
    {"boolean", "", t_boolean},
    {"true", "", t_true},
    {"false", "", t_false},
    {"integer", "", t_integer},
    {"float", "", t_float},
    {"number", "", t_number},
    {"string", "", t_string},
    {"mapping", "", t_mapping},
    {"escaped", "", t_escaped},
    {"iterable", "", t_iterable},
    {"sequence", "", t_sequence},
    {"callable", "", t_callable},
    {"sameas", "other", t_sameas},
    {"lower", "", t_lower},
    {"upper", "", t_upper},
    {"odd", "", t_odd},
    {"even", "", t_even},
    {"divisibleby", "num", t_divisibleby},
    {"in", "seq", t_in},
    {"==", "/other", t_eq},
    {"eq", "/other", t_eq},
    {"equalto", "/other", t_eq},
    {"!=", "/other", t_ne},
    {"ne", "/other", t_ne},
    {"<", "/other", t_lt},
    {"lt", "/other", t_lt},
    {"lessthan", "/other", t_lt},
    {"<=", "/other", t_le},
    {"le", "/other", t_le},
    {">", "/other", t_gt},
    {"gt", "/other", t_gt},
    {"greaterthan", "/other", t_gt},
    {">=", "/other", t_ge},
    {"ge", "/other", t_ge},
    {"filter", "", t_filter},
    {"test", "", t_test},
};

const struct func *test_find(const char *name, size_t n)
{
    return func_find(tests, NUM_COUNT(tests), name, n);
}
