/* What the door declares to cffi.  Constants stay `...`: the compiler knows them, and checks that they exist. */

#define NC_CACHE_LINE ...

typedef enum nc_result { NC_OK, NC_FULL, NC_EMPTY, ... } nc_result;
