/*
 * Strings of JSON Schema's "format", as expressions. What they describe is inside what the format's
 * own document allows: dates exist (leap years too), addresses and URIs have their usual forms.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <string.h>

#define DAY                                                                               \
    "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]"    \
    "|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|" \
    "(?:[02468][048]|[13579][26])00)-02-29)"
#define CLOCK                                                                         \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3])" \
    ":[0-5]\\d)"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){0,8}"
#define BYTE "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4 BYTE "(?:\\." BYTE "){3}"
#define HEX "[0-9A-Fa-f]{1,4}"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
#define URI_CHAR "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define DURATION_TIME "T(?:\\d{1,9}H(?:\\d{1,9}M(?:\\d{1,9}S)?)?|\\d{1,9}M(?:\\d{1,9}S)?|\\d{1,9}S)"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DAY},
    {"time", CLOCK},
    {"date-time", DAY "T" CLOCK},
    {"duration", "P(?:\\d{1,9}W|(?:\\d{1,9}Y(?:\\d{1,9}M(?:\\d{1,9}D)?)?|\\d{1,9}M(?:\\d{1,9}D)?|"
                 "\\d{1,9}D)(?:" DURATION_TIME ")?|" DURATION_TIME ")"},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    {"email", ATOM "(?:\\." ATOM "){0,4}@" LABEL "(?:\\." LABEL "){1,8}"},
    {"hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6",
     "(?:" HEX ":){7}" HEX "|(?:" HEX ":){1,6}:" HEX "|(?:" HEX ":){1,5}(?::" HEX "){2}|(?:" HEX
     ":){1,4}(?::" HEX "){3}|(?:" HEX ":){1,3}(?::" HEX "){4}|(?:" HEX ":){1,2}(?::" HEX "){5}|" HEX
     ":(?::" HEX "){6}|:(?::" HEX "){1,7}|(?:" HEX ":){1,7}:|::"},
    {"uri", "[A-Za-z][A-Za-z0-9+.-]{0,30}:(?://" HOST "(?::\\d{1,5})?(?:/" URI_CHAR "*)*|" URI_CHAR
            "+)(?:\\?(?:" URI_CHAR "|[/?])*)?(?:#(?:" URI_CHAR "|[/?])*)?"},
    {"uri-reference",
     "(?:[A-Za-z][A-Za-z0-9+.-]{0,30}:)?(?://" HOST "(?::\\d{1,5})?)?(?:/" URI_CHAR "*)*"
     "(?:\\?(?:" URI_CHAR "|[/?])*)?(?:#(?:" URI_CHAR "|[/?])*)?"},
    {"json-pointer", "(?:/(?:[^/~\\x00-\\x1f]|~[01])*)*"},
    {"relative-json-pointer", "(?:0|[1-9]\\d{0,8})(?:#|(?:/(?:[^/~\\x00-\\x1f]|~[01])*)*)"},
    {"byte", "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"},
    /* what is narrower than the format may be is still inside it */
    {"idn-email", ATOM "(?:\\." ATOM "){0,4}@" LABEL "(?:\\." LABEL "){1,8}"},
    {"idn-hostname", HOST},
    {"iri", "[A-Za-z][A-Za-z0-9+.-]{0,30}:(?://" HOST "(?::\\d{1,5})?(?:/" URI_CHAR "*)*|" URI_CHAR
            "+)(?:\\?(?:" URI_CHAR "|[/?])*)?(?:#(?:" URI_CHAR "|[/?])*)?"},
    /* OpenAPI's, which say nothing of the characters */
    {"binary", "[^\\x00]*"},
    {"password", "[^\\x00]*"},
};

struct gx *gformat(struct gjson *j, const char *name)
{
    for (size_t i = 0; i < NUM_COUNT(formats); i++)
        if (!strcmp(name, formats[i].name)) {
            const char *p = formats[i].pattern;
            return gregex(j->b, p, strlen(p), j, true);
        }
    return NULL;
}
