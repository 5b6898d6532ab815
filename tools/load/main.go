// Load for coordd, open or closed loop: what is offered does not slow down because the daemon does.
//
// One run is some seconds of a mix of classes, each at its own rate; it prints one JSON object: for each class
// how many calls were offered, answered, refused as the contract says (RESOURCE_EXHAUSTED with RetryInfo) or in
// any other way, and how long each of these took, from when the call was due and not from when it was sent.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"os"
	"time"
)

func main() {
	address := flag.String("address", "127.0.0.1:7651", "where the daemon listens")
	connections := flag.Int("connections", 16, "connections, used in turn")
	seconds := flag.Float64("seconds", 10, "how long the load lasts")
	warmUp := flag.Float64("warm-up", 2, "seconds at the start that are not counted")
	clients := flag.Int("clients", 0, "closed loop: so many clients, each with one lease at a time")
	leases := flag.Float64("leases", 0, "open loop: RequestLock a second; each that is granted is renewed and released")
	criticals := flag.Float64("critical", 0, "the same, of CRITICAL requests")
	renewals := flag.Float64("renewals", 0, "RenewLock a second, of leases held from the start")
	held := flag.Int("held", 100, "how many leases are held from the start, to be renewed")
	label := flag.String("label", "load", "begins the names of items and workers, so that runs do not meet")
	flag.Parse()

	daemon, err := dial(*address, *connections)
	if err != nil {
		log.Fatal(err)
	}
	run := &run{
		daemon: daemon,
		label:  *label,
		length: time.Duration(*seconds * float64(time.Second)),
		warmUp: time.Duration(*warmUp * float64(time.Second)),
	}
	if *renewals > 0 {
		if err := run.hold(*held); err != nil {
			log.Fatal(err)
		}
	}
	report := run.do([]class{
		{name: "lease", rate: *leases, clients: *clients, call: run.lease(medium)},
		{name: "critical", rate: *criticals, call: run.lease(critical)},
		{name: "renewal", rate: *renewals, call: run.renewal},
	})
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}
