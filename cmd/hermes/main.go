// Command hermes is the whole product in one binary: the container's boot
// program, the gateway, the dashboard and the command line.
package main

import (
	"os"

	"github.com/hermesgw/hermes/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args))
}
