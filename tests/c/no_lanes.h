/* no_lanes.h: all that a program about lanes does where the system has none.  run.sh looks for the words. */
#include <stdio.h>

int main(void)
{
    printf("no lanes between processes on this system\n");
    return 0;
}
