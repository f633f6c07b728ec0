package fastpath

//go:generate go tool bpf2go -target bpfel -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type reason -type config_flag -type way_flag -type way -type fragment_word -type fragment_state program bpf/fastpath.c
