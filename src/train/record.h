/*
 * What a record says: its form, and its conversations as one kind of list, whatever columns and
 * spellings the file has (train/data.h lists them).
 */
#ifndef PONDER_TRAIN_RECORD_H
#define PONDER_TRAIN_RECORD_H

#include "train/data.h"

enum record_form {
    RECORD_TEXT,  /* texts as they stand: prompt, and what follows it */
    RECORD_CHAT,  /* messages: those before, and what follows them */
    RECORD_WHOLE, /* messages: a whole conversation */
};

/*
 * A text or a list of messages each; NULL where there is none. References of their own. With
 * DATA_PAIRS `next` is what was chosen.
 */
struct record {
    enum record_form form;
    json_t *prompt, *next, *rejected;
    json_t *tools,
        *variables; /* of the template; borrowed from the row, NULL where there are none */
    float weight;
    int label;    /* 0 or 1; -1: there is none */
    float margin; /* of a pair: 0 without */
};

/* Errors name the column. Release in any case. `text`, `system` as in data_options. */
int record_read(struct record *r, const json_t *row, enum data_use use, const char *text,
                const char *system, struct err *e);
void record_release(struct record *r);

/* The text of a message's content: a string, or the texts of a list of parts one after the other. A
   new reference; NULL when there is no text (then it is "" if content is null). */
json_t *record_content(const json_t *message);

/* Any bytes as a JSON text: what is no UTF-8 becomes U+FFFD. A new reference; NULL: no memory. */
json_t *record_text(const char *s, size_t n);

/* What a record asks, for the split and for decontamination: lower case, single blanks. */
int record_asks(const json_t *row, const char *text, struct buf *out, struct err *e);
/* Any text in that form, appended to `out`. */
int record_normal(const char *s, size_t n, struct buf *out, struct err *e);

#endif
