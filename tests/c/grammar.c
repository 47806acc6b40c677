/* Grammars: what compiles, what it lets through, and that what it lets through is complete in the end. */
#include "check.h"

static grug_grammar *new_grammar(uint32_t kind, const char *source) {
    grug_grammar *grammar = NULL;
    OK(grug_grammar_new(kind, source, strlen(source), &grammar, &err));
    CHECK(grammar != NULL);
    return grammar;
}

static grug_sampler *guided(const grug_grammar *grammar, uint64_t seed, uint32_t flags) {
    grug_sampler_options options = { .size = sizeof options, .temperature = 1, .seed = seed, .flags = flags };
    grug_sampler *sampler = NULL;
    options.grammar = grammar;
    OK(grug_sampler_new(&options, &sampler, &err));
    return sampler;
}

static int allows(const uint8_t mask[32], int byte) { return mask[byte >> 3] >> (byte & 7) & 1; }

static int count(const uint8_t mask[32]) {
    int byte, n = 0;
    for (byte = 0; byte < 256; byte++) n += allows(mask, byte);
    return n;
}

static void refusals(void) {
    grug_grammar *grammar = (grug_grammar *)&grammar;
    grug_grammar *const untouched = grammar;
    FAILS(GRUG_EINVAL, "out is NULL", grug_grammar_new(GRUG_GRAMMAR_REGEX, "a", 1, NULL, &err));
    FAILS(GRUG_EINVAL, "source is NULL", grug_grammar_new(GRUG_GRAMMAR_REGEX, NULL, 1, &grammar, &err));
    FAILS(GRUG_EINVAL, "kind 0", grug_grammar_new(0, "a", 1, &grammar, &err));
    FAILS(GRUG_EINVAL, "kind 4", grug_grammar_new(4, "a", 1, &grammar, &err));
    FAILS(GRUG_EFORMAT, "UTF-8 from byte 1", grug_grammar_new(GRUG_GRAMMAR_REGEX, "a\xff", 2, &grammar, &err));
    FAILS(GRUG_EFORMAT, "", grug_grammar_new(GRUG_GRAMMAR_REGEX, "(a", 2, &grammar, &err));
    FAILS(GRUG_EFORMAT, "root", grug_grammar_new(GRUG_GRAMMAR_GBNF, "a ::= \"b\"", 9, &grammar, &err));
    FAILS(GRUG_EFORMAT, "", grug_grammar_new(GRUG_GRAMMAR_JSON_SCHEMA, "{", 1, &grammar, &err));
    FAILS(GRUG_EUNSUPPORTED, "multipleOf",
          grug_grammar_new(GRUG_GRAMMAR_JSON_SCHEMA, "{\"multipleOf\": 2}", 17, &grammar, &err));
    CHECK(grug_grammar_new(GRUG_GRAMMAR_REGEX, "(", 1, &grammar, NULL) == GRUG_EFORMAT);
    CHECK(grammar == untouched);
    grug_grammar_free(NULL);
}

/* A model with random weights writes a date, a list and a JSON value, whatever it would rather write. */
static void generation(const grug_model *model) {
    grug_grammar *date = new_grammar(GRUG_GRAMMAR_REGEX, "(19|20)[0-9]{2}-(0[1-9]|1[0-2])");
    grug_grammar *list = new_grammar(GRUG_GRAMMAR_GBNF, "root ::= item (\",\" item){2}\nitem ::= [a-z] [0-9]?");
    grug_grammar *json = new_grammar(GRUG_GRAMMAR_JSON_SCHEMA,
                                     "{\"type\": \"object\", \"properties\": {\"ok\": {\"type\": \"boolean\"}},"
                                     " \"required\": [\"ok\"]}");
    uint64_t seed;
    for (seed = 0; seed < 20; seed++) {
        grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
        grug_sampler *sampler = guided(date, seed, 0);
        char text[200];
        size_t n = 0;
        int32_t reason;
        OK(reason = grug_session_generate(session, sampler, NULL, 0, (uint8_t *)text, sizeof text, &n, &err));
        CHECK(reason == GRUG_STOP_GRAMMAR && n == 7 && text[4] == '-' && (text[0] == '1' || text[0] == '2'));
        /* Nothing more may come, and that is no error where the text can end. */
        OK(reason = grug_session_generate(session, sampler, NULL, 0, (uint8_t *)text, sizeof text, &n, &err));
        CHECK(reason == GRUG_STOP_GRAMMAR && n == 0);
        FAILS(GRUG_EDEADEND, "complete", grug_session_next(session, sampler, &err));
        OK(grug_sampler_reset(sampler, seed + 1, &err));
        OK(reason = grug_session_generate(session, sampler, NULL, 0, (uint8_t *)text, sizeof text, &n, &err));
        CHECK(reason == GRUG_STOP_GRAMMAR && n == 7);
        grug_sampler_free(sampler);

        sampler = guided(list, seed, 0);
        OK(reason = grug_session_generate(session, sampler, NULL, 0, (uint8_t *)text, sizeof text, &n, &err));
        CHECK(reason == GRUG_STOP_GRAMMAR && n >= 5 && n <= 8 && strchr(text, ',') != NULL);
        grug_sampler_free(sampler);

        sampler = guided(json, seed, GRUG_SAMPLE_UTF8);
        OK(reason = grug_session_generate(session, sampler, NULL, 0, (uint8_t *)text, sizeof text, &n, &err));
        CHECK(reason == GRUG_STOP_GRAMMAR && text[0] == '{' && text[n - 1] == '}');
        text[n] = 0;
        CHECK(strstr(text, "\"ok\"") != NULL && (strstr(text, "true") != NULL) != (strstr(text, "false") != NULL));
        grug_sampler_free(sampler);
        grug_session_free(session);
    }
    grug_grammar_free(date);
    grug_grammar_free(list);
    grug_grammar_free(json);
}

/* The mask follows the walk; a sampler keeps its grammar, and a fork has a place of its own. */
static void masks(void) {
    grug_grammar *grammar = new_grammar(GRUG_GRAMMAR_REGEX, "ab(c|[d-f]g)*");
    grug_sampler *sampler = guided(grammar, 0, 0), *fork = NULL;
    float bias[256] = { 0 }, logits[256] = { 0 };
    grug_sampler_options options = { .size = sizeof options, .bias = bias };
    uint8_t mask[34] = { 0 };
    mask[33] = 0xEE;
    grug_grammar_free(grammar);

    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_allowed(NULL, mask, &err));
    FAILS(GRUG_EINVAL, "mask is NULL", grug_sampler_allowed(sampler, NULL, &err));
    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_accept(NULL, 'a', &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 0 && count(mask) == 1 && allows(mask, 'a'));
    FAILS(GRUG_EDEADEND, "byte 98", grug_sampler_accept(sampler, 'b', &err));
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 'a');
    OK(grug_sampler_accept(sampler, 'b', &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 1 && count(mask) == 4 && allows(mask, 'c') && !allows(mask, 'g'));
    OK(grug_sampler_fork(sampler, &fork, &err));
    OK(grug_sampler_accept(fork, 'e', &err));
    CHECK(grug_sampler_allowed(fork, mask, NULL) == 0 && count(mask) == 1 && allows(mask, 'g'));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 1 && count(mask) == 4);
    OK(grug_sampler_reset(sampler, 0, &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 0 && count(mask) == 1);
    CHECK(mask[32] == 0 && mask[33] == 0xEE);
    grug_sampler_free(sampler);
    grug_sampler_free(fork);

    /* Without a grammar: everything but what bias bans; and with UTF-8, what can begin a character. */
    bias['x'] = -INFINITY;
    OK(grug_sampler_new(&options, &sampler, &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 1 && count(mask) == 255 && !allows(mask, 'x'));
    grug_sampler_free(sampler);
    options.bias = NULL;
    options.flags = GRUG_SAMPLE_UTF8;
    OK(grug_sampler_new(&options, &sampler, &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 1 && !allows(mask, 0x80) && allows(mask, 0xC3));
    OK(grug_sampler_accept(sampler, 0xC3, &err));
    CHECK(grug_sampler_allowed(sampler, mask, NULL) == 0 && count(mask) == 64 && !allows(mask, 'a'));
    grug_sampler_free(sampler);
}

void test_grammar(void) {
    grug_model *model = load_model(1);
    refusals();
    masks();
    generation(model);
    grug_model_free(model);
}
