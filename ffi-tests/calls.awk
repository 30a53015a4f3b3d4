# Makes a C table of all functions of dmsnap.h, each with a call for every argument: see hostile_arguments.c.
#
# Reads declarations, one a line. For `int f(const struct a *b, uint64_t c)` it writes a function that makes the call with
# arguments of the fixture, one of which can be replaced: a pointer by NULL, a number by another one.

BEGIN {
    sizes = "dmsnap_(storage_ops|status|usage|run|extent|progress|facts|layer|check_summary|finding|descriptor_info|step|header|" \
        "measure|store_facts|mapping|exception|recover_summary|left_out) \\*$"
}

function trim(text) { gsub(/^ +| +$/, "", text); return text }

# The parameters of the present function: type and name of each.
function split_parameters(list,    parts, number, i, part) {
    number = 0
    # The only function pointer has commas of its own.
    gsub(/(_Bool|bool) \(\*callback\)\(void \*opaque, const struct dmsnap_progress \*progress\)/, "callback *callback", list)
    if (list == "void") return 0
    split("", parts)
    number = split(list, parts, ",")
    for (i = 1; i <= number; i++) {
        part = trim(parts[i])
        match(part, /[a-z_0-9]+$/)
        name[i] = substr(part, RSTART)
        type[i] = trim(substr(part, 1, RSTART - 1))
        gsub(/(const|struct) /, "", type[i])
    }
    return number
}

# What a call passes for parameter i. `POINTER` and `NUMBER` are macros that look whether it is this one's turn.
function argument(i,    what) {
    what = type[i]
    if (what ~ /\*/) {
        gsub(/ /, "", what)
        gsub(/\*\*/, "_place", what)
        gsub(/\*/, "_pointer", what)
        return "POINTER(" (i - 1) ", ARGUMENT_" what "(" name[i] "))"
    }
    return "NUMBER(" (i - 1) ", " what ", ARGUMENT_" name[i] ")"
}

match($0, /dmsnap_[a-z_0-9]+\(.*\)/) {
    call = substr($0, RSTART, RLENGTH)
    result = trim(substr($0, 1, RSTART - 1))
    function_name = substr(call, 1, index(call, "(") - 1)
    list = substr(call, index(call, "(") + 1)
    list = substr(list, 1, length(list) - 1)
    count = split_parameters(list)
    arguments = kinds = names = ""
    takes_size = 0
    for (i = 1; i <= count; i++) {
        arguments = arguments (i > 1 ? ", " : "") argument(i)
        kinds = kinds (type[i] ~ /\*/ ? "p" : "n")
        names = names (i > 1 ? " " : "") name[i]
        if (type[i] ~ sizes) takes_size = 1
    }
    printf "static int64_t call_%s(struct fixture *f)\n{\n    (void)f;\n", function_name
    if (result == "void") printf "    %s(%s);\n    return 0;\n", function_name, arguments
    else if (result ~ /char/) printf "    return %s(%s) != NULL;\n", function_name, arguments
    else if (result ~ /\*/) {
        # Options, which are ours to free.
        object = result
        gsub(/struct |[ *]/, "", object)
        printf "    %s *given = %s(%s);\n\n    %s_free(given);\n    return given != NULL;\n", object, function_name, arguments, object
    }
    else printf "    return (int64_t)%s(%s);\n", function_name, arguments
    print "}\n"
    table = table sprintf("    {\"%s\", call_%s, \"%s\", \"%s\", %d, %d},\n", function_name, function_name, kinds, names, result == "int", takes_size)
}

END {
    print "static const struct function functions[] = {"
    printf "%s", table
    print "};"
}
