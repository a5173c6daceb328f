// Package chaos proves that accepted means answered: many people write numbered
// messages, over HTTP and over a real IRC network, to a gateway in the real
// image, while it is killed, stopped, drained and cut off at random moments. A
// checker that knows only what people saw and what the model server saw then
// says what was lost, doubled, out of order or asked for again.
//
// The same checker must find fault with a gateway from which one protection was
// taken away: else it would prove nothing.
//
//	go test -v ./e2e/chaos                                       # 50 faults
//	go test -v ./e2e/chaos -run TestChaos -seed 7 -faults 1000 -worlds 4
//
// It imports nothing of the product but its surroundings. The Docker engine must
// run on this machine: the model server and the IRC server of a test listen on
// the bridge of a network of the test's own.
package chaos
