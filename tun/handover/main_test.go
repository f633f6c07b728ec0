package handover

import (
	"testing"

	"fragwall/tun/internal/lanetest"
)

func TestMain(m *testing.M) { lanetest.Main(m) }
