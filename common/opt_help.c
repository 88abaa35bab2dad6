/* opt_help.c - the option table as text: for a terminal, as a man page, as bash completion.
 *
 * Nothing is written twice: names, arguments, ranges and defaults come from the table that parses,
 * and the exit codes from the table of err.h.
 */
#include "opt_help.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "opt_value.h"

#define HELP_COLUMNS 80
#define HELP_INDENT 28 /* of the text beside an option */
#define HELP_MAX_NAME 40
#define HELP_NEAR 2

bool opt_help_shows(const struct opt *opt)
{
    return (opt->flags & OPT_HIDDEN) == 0;
}

/* ---- words in columns */

/* Prints `text` wrapped at HELP_COLUMNS; the cursor is at `column`, later lines begin at `indent`.
 * A newline in the text begins a new line. */
static void help_wrap(const char *text, size_t column, size_t indent)
{
    bool first = true;
    while (*text != '\0') {
        if (*text == '\n' || *text == ' ') {
            if (*text++ == '\n') {
                printf("\n%*s", (int)indent, "");
                column = indent;
                first = true;
            }
            continue;
        }
        size_t size = strcspn(text, " \n");
        if (!first && column + 1 + size > HELP_COLUMNS) {
            printf("\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        printf("%s%.*s", first ? "" : " ", (int)size, text);
        column += size + (first ? 0 : 1);
        first = false;
        text += size;
    }
    putchar('\n');
}

/* "; 1 to 4096, default 8": what the table knows beside the sentence. */
static void help_note(const struct opt *opt, char *note, size_t size)
{
    char range[256] = "";
    if (opt->type != OPT_TYPE_FLAG)
        opt_value_range(opt, range, sizeof range);
    const char *between = range[0] != '\0' && opt->fallback != NULL ? ", " : "";
    const char *word = opt->fallback != NULL ? "default " : "";
    const char *fallback = opt->fallback != NULL ? opt->fallback : "";
    const char *repeat = opt->type == OPT_TYPE_LIST ? "may be repeated" : "";
    snprintf(note, size, "%s%s%s%s%s", range, between, word, fallback, repeat);
}

static const char *help_argument(const struct opt *opt)
{
    return opt->arg != NULL ? opt->arg : opt->type == OPT_TYPE_CHOICE ? "WORD" : "VALUE";
}

static void help_option(const struct opt *opt)
{
    char note[512], text[2048];
    help_note(opt, note, sizeof note);
    bool value = opt->type != OPT_TYPE_FLAG;
    int column = printf(opt->letter != 0 ? "  -%c, " : "      ", opt->letter);
    column += printf("--%s%s%s", opt->name, value ? " " : "", value ? help_argument(opt) : "");
    if (column + 2 > HELP_INDENT) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", HELP_INDENT - column, "");
    snprintf(text, sizeof text, "%s%s%s%s%s", opt->help, note[0] != '\0' ? " (" : "", note,
             note[0] != '\0' ? ")" : "", (opt->flags & OPT_NOT_BUILT) != 0 ? " - not built" : "");
    help_wrap(text, HELP_INDENT, HELP_INDENT);
}

static void help_print(const struct opt_tool *tool)
{
    printf("usage: %s\n\n", tool->synopsis);
    help_wrap(tool->summary, 0, 0);
    if (tool->details != NULL) {
        putchar('\n');
        help_wrap(tool->details, 0, 0);
    }
    printf("\noptions:\n");
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        if (opt_help_shows(opt))
            help_option(opt);
    printf("      --help                print this, and do nothing else\n"
           "      --version             print the version, and do nothing else\n");
    if (tool->examples != NULL)
        printf("\nexamples:\n%s\n", tool->examples);
}

/* ---- man page */

/* Text for troff: no escapes, no requests at the start of a line, hyphens that can be copied. */
static void man_text(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        bool start = c == text || c[-1] == '\n';
        if (start && (*c == '.' || *c == '\''))
            printf("\\&");
        if (*c == '\\')
            printf("\\e");
        else if (*c == '-')
            printf("\\-");
        else
            putchar(*c);
    }
}

/* A heading and paragraphs; a newline in the text ends a paragraph. */
static void man_section(const char *title, const char *text)
{
    printf(".SH %s\n", title);
    while (*text != '\0') {
        size_t size = strcspn(text, "\n");
        char line[2048];
        snprintf(line, sizeof line, "%.*s", (int)size, text);
        printf(".PP\n");
        man_text(line);
        putchar('\n');
        text += size + (text[size] == '\n' ? 1 : 0);
    }
}

static void man_option(const struct opt *opt)
{
    char note[512];
    help_note(opt, note, sizeof note);
    printf(".TP\n");
    if (opt->letter != 0)
        printf("\\fB\\-%c\\fR, ", opt->letter);
    printf("\\fB\\-\\-");
    man_text(opt->name);
    printf("\\fR");
    if (opt->type != OPT_TYPE_FLAG) {
        printf(" \\fI");
        man_text(help_argument(opt));
        printf("\\fR");
    }
    putchar('\n');
    man_text(opt->help);
    if (note[0] != '\0') {
        printf(" (");
        man_text(note);
        putchar(')');
    }
    if ((opt->flags & OPT_NOT_BUILT) != 0)
        printf(" \\- not built");
    putchar('\n');
}

static void man_exit_codes(void)
{
    static const struct {
        int status;
        const char *meaning;
    } codes[] = {
#define HELP_CODE(name, code, status, meaning) {status, meaning},
        ERR_TABLE(HELP_CODE)
#undef HELP_CODE
    };
    printf(".SH EXIT STATUS\n.TP\n0\nall of it was done\n");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        printf(".TP\n%d\n", codes[i].status);
        man_text(codes[i].meaning);
        putchar('\n');
    }
}

static void man_print(const struct opt_tool *tool)
{
    char name[HELP_MAX_NAME];
    snprintf(name, sizeof name, "%s", tool->name);
    for (char *c = name; *c != '\0'; c++)
        *c = *c == ' ' ? '-' : *c;
    printf(".TH \"%s\" 1 \"\" \"ccpipe %s\"\n.SH NAME\n", name, OPT_VERSION);
    man_text(name);
    printf(" \\- ");
    man_text(tool->summary);
    printf("\n.SH SYNOPSIS\n");
    man_text(tool->synopsis);
    putchar('\n');
    if (tool->details != NULL)
        man_section("DESCRIPTION", tool->details);
    printf(".SH OPTIONS\n");
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        if (opt_help_shows(opt))
            man_option(opt);
    printf(
        ".PP\nk, M and G behind a count are powers of 1000. A value comes from the command line, "
        "else from\nthe environment variable CCPIPE_ and the option's name in capitals with _ "
        "for \\-, else from the\nsection \\(dq");
    man_text(tool->section);
    printf("\\(dq of the JSON file of \\fB\\-\\-config\\fR, else from its default.\n");
    if (tool->examples != NULL) {
        printf(".SH EXAMPLES\n.nf\n");
        man_text(tool->examples);
        printf("\n.fi\n");
    }
    man_exit_codes();
}

/* ---- bash */

/* Of a program of verbs: the first word is one of them, and what follows is that verb's own affair,
 * which the program is asked for when it is needed. */
static void completion_print_verbs(const struct opt_tool *tool)
{
    printf("_ccpipe_%s() {\n"
           "    local verb=${COMP_WORDS[1]} verbs='%s'\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -le 1 ]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$verbs --help --version\" -- \"$2\")\n"
           "    elif [[ \"$verbs\" == *\" $verb \"* ]]; then\n"
           "        declare -F \"_ccpipe_%s_$verb\" >/dev/null ||\n"
           "            source <(\"$1\" \"$verb\" --completion)\n"
           "        \"_ccpipe_%s_$verb\" \"$@\"\n"
           "    fi\n"
           "}\n",
           tool->name, tool->verbs, tool->name, tool->name);
}

static void completion_print_options(const struct opt_tool *tool)
{
    size_t program = strcspn(tool->name, " ");
    const char *verb = tool->name[program] == ' ' ? tool->name + program + 1 : NULL;
    printf("_ccpipe_%.*s%s%s() {\n    COMPREPLY=()\n    case $3 in\n", (int)program, tool->name,
           verb == NULL ? "" : "_", verb == NULL ? "" : verb);
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++) {
        if (!opt_help_shows(opt) || opt->type == OPT_TYPE_FLAG)
            continue;
        char words[256] = "";
        if (opt->type == OPT_TYPE_CHOICE)
            opt_value_range(opt, words, sizeof words);
        for (char *c = words; *c != '\0'; c++)
            *c = *c == ',' ? ' ' : *c;
        printf("    --%s) ", opt->name);
        if (words[0] != '\0')
            printf("mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$2\") ", words);
        printf(";;\n");
    }
    printf("    *) mapfile -t COMPREPLY < <(compgen -W '");
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        if (opt_help_shows(opt))
            printf("--%s ", opt->name);
    printf("--help --version' -- \"$2\") ;;\n    esac\n}\n");
}

static void completion_print(const struct opt_tool *tool)
{
    bool verb = strchr(tool->name, ' ') != NULL;
    if (tool->verbs != NULL && !verb)
        completion_print_verbs(tool);
    else
        completion_print_options(tool);
    if (!verb)
        printf("complete -o default -F _ccpipe_%s %s\n", tool->name, tool->name);
}

/* ---- which of them */

int opt_help_answer(const struct opt_tool *tool, const char *word, size_t length)
{
    static const char *const words[] = {"help", "version", "man", "completion"};
    size_t which = 0, count = sizeof words / sizeof *words;
    while (which < count &&
           (strlen(words[which]) != length || memcmp(words[which], word, length) != 0))
        which++;
    if (which == count)
        return 0;
    if (which == 0)
        help_print(tool);
    else if (which == 1)
        printf("%s %s (ccpipe)\n", tool->name, OPT_VERSION);
    else if (which == 2)
        man_print(tool);
    else
        completion_print(tool);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 1;
    return errno == EPIPE ? ERR_CLOSED : log_fail_errno("cannot write 'standard output'");
}

/* Levenshtein's distance; HELP_MAX_NAME for words that are too long to be worth it. */
static size_t help_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t row[HELP_MAX_NAME + 1];
    if (a_length > HELP_MAX_NAME || b_length > HELP_MAX_NAME)
        return HELP_MAX_NAME;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 0; i < a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_length; j++) {
            size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            size_t shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
            row[j + 1] = replaced < shorter + 1 ? replaced : shorter + 1;
        }
    }
    return row[b_length];
}

const char *opt_help_nearest(const struct opt_tool *tool, const char *word, size_t length)
{
    const char *nearest = NULL;
    size_t best = HELP_NEAR + 1;
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++) {
        size_t distance = help_distance(word, length, opt->name, strlen(opt->name));
        /* Two edits turn any word of two letters into any other. */
        if (opt_help_shows(opt) && distance < best && distance < length) {
            best = distance;
            nearest = opt->name;
        }
    }
    return nearest;
}
