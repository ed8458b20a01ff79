/*
 * A chat in fifty lines: chat MODEL [SYSTEM MESSAGE]. A question a line; Ctrl-D ends it.
 *
 *     cc chat.c $(pkg-config --cflags --libs ponder) -o chat
 */
#include <ponder.h>

#include <stdio.h>
#include <string.h>

/* Thoughts in grey, the answer plain. */
static int show(void *arg, enum ponder_piece kind, const char *text, size_t n)
{
    (void)arg;
    if (kind == PONDER_THOUGHT)
        printf("\033[2m%.*s\033[0m", (int)n, text);
    else
        fwrite(text, 1, n, stdout);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    struct ponder_error e;
    struct ponder_model *model = NULL;
    struct ponder_session *session = NULL;
    struct ponder_generation how = PONDER_GENERATION;
    struct ponder_result result = PONDER_RESULT;
    char line[4096];
    how.emit = show;
    how.seed = 1;
    how.max_tokens = 400;
    if (argc < 2) {
        fprintf(stderr, "usage: chat MODEL [SYSTEM MESSAGE]\n");
        return 2;
    }
    int rc = ponder_model_open(&model, argv[1], NULL, &e);
    if (!rc)
        rc = ponder_session_new(&session, model, &e);
    if (!rc && argc > 2)
        rc = ponder_chat_message(session, "system", argv[2], strlen(argv[2]), &e);
    while (!rc && fgets(line, sizeof line, stdin)) {
        rc = ponder_chat(session, line, strcspn(line, "\n"), &how, &result, &e);
        if (!rc)
            printf("\n(%zu tokens, %.1f a second)\n", result.answer_tokens,
                   (double)result.answer_tokens / (result.answer_seconds + 1e-9));
    }
    if (rc)
        fprintf(stderr, "chat: %s\n", e.text);
    ponder_session_free(session);
    ponder_model_close(model);
    return rc != 0;
}
