package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Machine is where and when a run was made.
type Machine struct {
	Date       time.Time `json:"date"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     float64   `json:"memory_bytes"`
	Kernel     string    `json:"kernel"`
	System     string    `json:"system"`
	Docker     string    `json:"docker"`
	Storage    string    `json:"storage_driver"`
	Cgroup     string    `json:"cgroup_version"`
	Version    string    `json:"hermes_version"`
	LoadBefore string    `json:"load_before"` // of the last minute, before and after the run:
	LoadAfter  string    `json:"load_after"`  // a machine that was busy measures itself
}

func (l *lab) machine(ctx context.Context) (Machine, error) {
	out, err := l.docker.out(ctx, "info", "-f", "{{json .}}")
	if err != nil {
		return Machine{}, err
	}
	var info struct {
		NCPU                                                                 int
		MemTotal                                                             float64
		KernelVersion, OperatingSystem, ServerVersion, Driver, CgroupVersion string
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return Machine{}, fmt.Errorf("cannot read docker info: %w", err)
	}
	version, err := l.docker.out(ctx, "image", "inspect", "-f", `{{index .Config.Labels "org.opencontainers.image.version"}}`, l.image)
	if err != nil {
		return Machine{}, fmt.Errorf("there is no image %s; build it with: make image: %w", l.image, err)
	}
	load, err := loadAverage()
	return Machine{
		Date: time.Now().UTC(), CPU: processor(), Cores: info.NCPU, Memory: info.MemTotal,
		Kernel: info.KernelVersion, System: info.OperatingSystem, Docker: info.ServerVersion,
		Storage: info.Driver, Cgroup: info.CgroupVersion, Version: version, LoadBefore: load,
	}, err
}

// processor is the name of the first one; "unknown" where the kernel has none.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for _, line := range strings.Split(string(text), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func loadAverage() (string, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", fmt.Errorf("cannot read the load of the machine: %w", err)
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute, nil
}
