// Command modelserver is the scripted OpenAI-compatible model server of
// internal/model/modelserver as a program, for tests that need it beside a
// container. It prints the address it listens on and runs until it is killed.
//
//	modelserver -listen 127.0.0.1:0 -script '[[529 xall]]'
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/hermesgw/hermes/internal/model/modelserver"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	context := flag.Int("context", 0, "`tokens` a request may have; 0 for no limit")
	script := flag.String("script", "", "`directives` for messages that have none of their own")
	piece := flag.Duration("piece", 0, "how long each piece of an answer takes")
	flag.Parse()
	if err := serve(*listen, modelserver.Options{Context: *context, Script: *script, Piece: *piece}); err != nil {
		fmt.Fprintln(os.Stderr, "modelserver:", err)
		os.Exit(1)
	}
}

func serve(address string, o modelserver.Options) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, modelserver.New(o))
}
