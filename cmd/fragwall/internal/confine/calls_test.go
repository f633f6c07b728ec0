package confine

import (
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// run runs a filter on struct seccomp_data. The VM loads big-endian words, unlike the kernel.
// So each word is stored in big-endian order, at the kernel's offset.
func run(t *testing.T, vm *bpf.VM, machine arch.AuditArch, number int, arguments [6]uint64) uint32 {
	t.Helper()
	var data [64]byte
	binary.BigEndian.PutUint32(data[offsetNumber:], uint32(number))
	binary.BigEndian.PutUint32(data[offsetMachine:], uint32(machine))
	for i, v := range arguments {
		binary.BigEndian.PutUint32(data[offsetArguments+8*i:], uint32(v))
		binary.BigEndian.PutUint32(data[offsetArguments+8*i+4:], uint32(v>>32))
	}
	verdict, err := vm.Run(data[:])
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func (c conditions) hold(arguments [6]uint64) bool {
	for _, one := range c {
		v := arguments[one.argument]
		if one.test == equals && v != one.value || one.test == has && v&one.value == 0 || one.test == hasNot && v&one.value != 0 {
			return false
		}
	}
	return true
}

// TestNames checks that each name in the lists is a system call on all machines, except for
// those that a machine lacks.
func TestNames(t *testing.T) {
	missing := map[string][]string{
		"amd64": {"fstatat"},
		"arm64": {"epoll_wait", "newfstatat", "poll"},
	}
	names := slices.AppendSeq(slices.Clone(calls), maps.Keys(Plan{FastPath: true}.conditional()))
	for machine, want := range missing {
		info, err := arch.GetInfo(machine)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range names {
			if _, ok := info.SyscallNames[name]; !ok {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s lacks %q, want %q", machine, got, want)
		}
	}
}

// TestFilter runs the filter for every system call with many arguments, and compares the result
// with the lists.
func TestFilter(t *testing.T) {
	for _, plan := range []Plan{{}, {FastPath: true}} {
		testFilter(t, plan)
	}
}

func testFilter(t *testing.T, plan Plan) {
	t.Helper()
	info, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	program, err := plan.filter()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	limited := plan.conditional()
	values := []uint64{0, 1, 2, 10, 44, ^uint64(0)}
	for _, alternatives := range limited {
		for _, c := range alternatives {
			for _, one := range c {
				values = append(values, one.value, one.value^1, one.value|1<<32)
			}
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	others := values // for the second argument
	if testing.Short() {
		others = values[:2]
	}
	for name, number := range info.SyscallNames {
		for _, first := range values {
			for _, second := range others {
				arguments := [6]uint64{first, second, second, first}
				want := failWith(unix.EPERM).Val
				switch {
				case slices.Contains(calls, name), slices.ContainsFunc(limited[name], func(c conditions) bool { return c.hold(arguments) }):
					want = allowed.Val
				case name == "clone3":
					want = failWith(unix.ENOSYS).Val
				}
				if got := run(t, vm, info.ID, number, arguments); got != want {
					t.Fatalf("%s %#x: %#x, want %#x", name, arguments, got, want)
				}
			}
		}
		if got := run(t, vm, arch.I386.ID, number, [6]uint64{}); got == allowed.Val {
			t.Errorf("%s of another machine is allowed", name)
		}
	}
}
