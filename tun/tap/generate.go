package tap

//go:generate go tool bpf2go -target bpfel -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type queue_in -type record_length -type shed_constants -type queue -type record program bpf/tap.c
