/* parquet_schema.c - the schema is a tree, written in preorder, each element with the number of its
 * children.
 *
 * A list of ids may be written in many ways: the canonical three levels (optional group, repeated
 * group, optional item), the two of old writers, large and fixed-size lists, with `element`, `item`
 * or `array` as names. So names below the column are not looked at: from the column down there must
 * be one child at each level, one of them repeated, and an integer at the end.
 */
#include "parquet_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

#define SCHEMA_MAX_DEPTH 64
#define SCHEMA_MAX_DEFINITION 3

enum schema_repetition { SCHEMA_REQUIRED, SCHEMA_OPTIONAL, SCHEMA_REPEATED };
enum schema_converted { SCHEMA_UINT_8 = 11, SCHEMA_UINT_64 = 14 };

struct schema_element {
    const char *name;
    size_t name_size;
    int64_t type; /* -1: a group */
    int64_t repetition, children;
    bool is_unsigned;
};

struct schema {
    struct schema_element *elements;
    size_t count, at; /* the walk's place */
    size_t leaves;    /* passed so far */
    const char *name; /* of the file */
};

static int schema_corrupt(const struct schema *schema, const char *what)
{
    return log_fail(ERR_DATA, "'%s': Parquet schema: %s", schema->name, what);
}

/* ---- elements */

/* LogicalType, a union: INTEGER is field 10, {1: bit width, 2: is signed}. */
static bool schema_logical_unsigned(struct thrift *thrift, uint8_t type)
{
    struct thrift_field kind = {0};
    bool is_unsigned = false;
    if (!thrift_struct(thrift, type))
        return false;
    while (thrift_field_next(thrift, &kind)) {
        if (kind.id != 10) {
            thrift_skip(thrift, kind.type);
            continue;
        }
        struct thrift_field field = {0};
        if (!thrift_struct(thrift, kind.type))
            return false;
        while (thrift_field_next(thrift, &field)) {
            if (field.id == 2)
                is_unsigned = !thrift_bool(thrift, field.type);
            else
                thrift_skip(thrift, field.type);
        }
    }
    return is_unsigned;
}

static struct schema_element schema_read_element(struct thrift *thrift)
{
    struct schema_element element = {.name = "", .type = -1};
    struct thrift_field field = {0};
    int64_t converted;
    while (thrift_field_next(thrift, &field)) {
        switch (field.id) {
        case 1:
            element.type = thrift_int(thrift, field.type);
            break;
        case 3:
            element.repetition = thrift_int(thrift, field.type);
            break;
        case 4:
            element.name = (const char *)thrift_binary(thrift, field.type, &element.name_size);
            break;
        case 5:
            element.children = thrift_int(thrift, field.type);
            break;
        case 6:
            converted = thrift_int(thrift, field.type);
            element.is_unsigned |= converted >= SCHEMA_UINT_8 && converted <= SCHEMA_UINT_64;
            break;
        case 10:
            element.is_unsigned |= schema_logical_unsigned(thrift, field.type);
            break;
        default:
            thrift_skip(thrift, field.type);
        }
    }
    return element;
}

static int schema_read(struct schema *schema, struct thrift *thrift, uint8_t type)
{
    uint8_t element;
    size_t count = thrift_list(thrift, type, &element);
    if (count == 0 || element != THRIFT_STRUCT)
        return schema_corrupt(schema, "there are no elements");
    schema->elements = mem_alloc(count, sizeof *schema->elements);
    if (schema->elements == NULL)
        return mem_fail("a Parquet schema", count, sizeof *schema->elements);
    schema->count = count;
    for (size_t i = 0; i < count; i++)
        schema->elements[i] = schema_read_element(thrift);
    if (thrift->state != THRIFT_GOOD)
        return schema_corrupt(schema, "it is damaged");
    return 0;
}

/* ---- the walk */

static int schema_next(struct schema *schema, const struct schema_element **element)
{
    if (schema->at == schema->count)
        return schema_corrupt(schema, "an element has more children than there are");
    *element = &schema->elements[schema->at++];
    if ((*element)->children < 0 || (*element)->repetition < SCHEMA_REQUIRED ||
        (*element)->repetition > SCHEMA_REPEATED)
        return schema_corrupt(schema, "an element has a wrong number of children or repetition");
    return 0;
}

static int schema_skip(struct schema *schema, unsigned depth)
{
    const struct schema_element *element = NULL;
    int status = schema_next(schema, &element);
    if (status == 0 && depth > SCHEMA_MAX_DEPTH)
        return schema_corrupt(schema, "it is nested deeper than 64 levels");
    if (status == 0 && element->children == 0)
        schema->leaves++;
    for (int64_t i = 0; status == 0 && i < element->children; i++)
        status = schema_skip(schema, depth + 1);
    return status;
}

static int schema_refuse(const struct schema *schema, const char *column, const char *what)
{
    return log_fail(ERR_USAGE, "'%s': column '%s' %s; tokens are a list of integers", schema->name,
                    column, what);
}

/* The column is at hand: down to its leaf. */
static int schema_descend(struct schema *schema, struct parquet_leaf *leaf, const char *column)
{
    const struct schema_element *element = NULL;
    bool repeated = false;
    int status;
    *leaf = (struct parquet_leaf){.column = schema->leaves};
    while ((status = schema_next(schema, &element)) == 0) {
        leaf->max_definition += element->repetition != SCHEMA_REQUIRED;
        if (element->repetition == SCHEMA_REPEATED) {
            if (repeated)
                return schema_refuse(schema, column, "holds lists of lists");
            repeated = true;
            leaf->in_list = leaf->max_definition;
        }
        if (element->children == 0)
            break;
        if (element->children > 1)
            return schema_refuse(schema, column, "has several fields");
    }
    if (status != 0)
        return status;
    if (element->type != PARQUET_INT32 && element->type != PARQUET_INT64)
        return schema_refuse(schema, column, "does not hold integers of 32 or 64 bits");
    if (!repeated)
        return schema_refuse(schema, column, "holds no lists");
    if (leaf->max_definition > SCHEMA_MAX_DEFINITION)
        return schema_refuse(schema, column, "is nested too deeply");
    leaf->type = (enum parquet_type)element->type;
    leaf->is_unsigned = element->is_unsigned;
    schema->leaves++;
    return 0;
}

/* The column is missing: those that are there. */
static int schema_name_columns(struct schema *schema, const char *column)
{
    char names[512] = "";
    size_t used = 0;
    schema->at = 1;
    for (int64_t i = 0; i < schema->elements[0].children; i++) {
        const struct schema_element *element = &schema->elements[schema->at];
        if (used + element->name_size + 10 > sizeof names) {
            used += (size_t)snprintf(names + used, sizeof names - used, ", …");
            break;
        }
        used += (size_t)snprintf(names + used, sizeof names - used, "%s'%.*s'",
                                 used > 0 ? ", " : "", (int)element->name_size, element->name);
        int status = schema_skip(schema, 1);
        if (status != 0)
            return status;
    }
    return log_fail(ERR_USAGE, "'%s': there is no column '%s' (--column); there is %s",
                    schema->name, column, used > 0 ? names : "none");
}

static int schema_walk(struct schema *schema, struct parquet_leaf *leaf, const char *column)
{
    const struct schema_element *root = NULL, *element;
    bool found = false;
    int status = schema_next(schema, &root);
    for (int64_t i = 0; status == 0 && i < root->children; i++) {
        if (schema->at == schema->count)
            return schema_corrupt(schema, "an element has more children than there are");
        element = &schema->elements[schema->at];
        bool wanted = !found && element->name_size == strlen(column) &&
                      memcmp(element->name, column, element->name_size) == 0;
        found |= wanted;
        status = wanted ? schema_descend(schema, leaf, column) : schema_skip(schema, 1);
    }
    if (status != 0)
        return status;
    if (schema->at != schema->count)
        return schema_corrupt(schema, "there are elements that no other one has as a child");
    return found ? 0 : schema_name_columns(schema, column);
}

int parquet_schema_find(struct parquet_leaf *leaf, size_t *leaves, struct thrift *thrift,
                        uint8_t type, const char *column, const char *name)
{
    struct schema schema = {.name = name};
    int status = schema_read(&schema, thrift, type);
    if (status == 0)
        status = schema_walk(&schema, leaf, column);
    *leaves = schema.leaves;
    free(schema.elements);
    return status;
}
