/* Folders of small models for tests of the server: the golden ones, under chosen templates. */
#ifndef PONDER_TESTS_SERVER_MODELS_H
#define PONDER_TESTS_SERVER_MODELS_H

#include <stddef.h>

/* A new folder below TMPDIR; free with models_drop, which removes it with all that is in it. */
char *models_folder(void);
void models_drop(char *folder);

/* folder/name becomes the golden model `golden` (linked, not copied), with `chat_template`, or its
   own when NULL. Fails the test when it cannot. */
void models_add(const char *folder, const char *name, const char *golden,
                const char *chat_template);

/* In the vocabulary of folder/name, token from[i] is written to[i] from now on. */
void models_rename_tokens(const char *folder, const char *name, const char *const *from,
                          const char *const *to, size_t n);

/* Templates: one that knows no thoughts, one that always opens them, one with a switch, one that
   insists on turns and on arguments as text. */
extern const char models_plain[], models_always[], models_switch[], models_strict[];

#endif
