# The programs and their sources. Those that load the library by themselves are not among them.
declare -A programs=(
    [header_alone]="header_alone.c"
    [header_twice]="header_twice.c header_twice_other.c"
    [header_cxx]="header_cxx.cpp"
    [version]="version.c"
    [roundtrip]="roundtrip.c"
    [errors_image]="errors_image.c"
    [errors_store]="errors_store.c host.c"
    [callbacks]="callbacks.c"
    [threads]="threads.c"
    [threads_store]="threads_store.c host.c"
    [store_host]="store_host.c host.c"
    [cxx]="cxx.cpp"
    [hostile_arguments]="hostile_arguments.c host.c"
    [hostile_host]="hostile_host.c"
)
