package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Beyond so many calls under way the generator itself would be measured; what is not sent is counted.
const underWayMax = 50_000

// class is one sort of call: `rate` a second, or by so many `clients` one at a time.
type class struct {
	name    string
	rate    float64
	clients int
	call    func(index uint64, note func(step string, began time.Time, err error))
}

type lease struct {
	item, worker string
	token        uint64
}

type run struct {
	daemon         *daemon
	label          string
	length, warmUp time.Duration
	leases         []lease
	underWay       atomic.Int64
	notes          sync.Mutex
	report         map[string]*steps
	counted        time.Time
}

// steps is what became of one class's calls of one sort.
type steps struct {
	// Not sent, since too many were under way.
	Unsent  uint64              `json:"unsent"`
	Endings map[string]*endings `json:"endings"`
}

// endings is how many ended in one way, a second, and how long they took, ms.
type endings struct {
	Count     int     `json:"count"`
	PerSecond float64 `json:"per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	took      []time.Duration
}

func (r *run) hold(count int) error {
	for index := range count {
		held := lease{item: fmt.Sprintf("%s-held-%d", r.label, index), worker: fmt.Sprintf("%s-holder-%d", r.label, index)}
		token, err := r.daemon.requestLock(held.item, held.worker, medium, time.Hour)
		if err != nil {
			return err
		}
		held.token = token
		r.leases = append(r.leases, held)
	}
	return nil
}

// lease returns the call that takes a lock on an item of its own, renews it once, and gives it back.
func (r *run) lease(priority uint64) func(uint64, func(string, time.Time, error)) {
	return func(index uint64, note func(string, time.Time, error)) {
		item := fmt.Sprintf("%s-%d-%d", r.label, priority, index)
		worker := fmt.Sprintf("%s-worker-%d", r.label, index%500)
		began := time.Now()
		token, err := r.daemon.requestLock(item, worker, priority, 0)
		note("request", began, err)
		if err != nil {
			return
		}
		began = time.Now()
		note("renewal", began, r.daemon.renewLock(item, worker, token))
		began = time.Now()
		note("release", began, r.daemon.releaseLock(item, worker, token))
	}
}

func (r *run) renewal(index uint64, note func(string, time.Time, error)) {
	held := r.leases[index%uint64(len(r.leases))]
	began := time.Now()
	note("renew", began, r.daemon.renewLock(held.item, held.worker, held.token))
}

func (r *run) do(classes []class) map[string]*steps {
	r.report = map[string]*steps{}
	began := time.Now()
	r.counted = began.Add(r.warmUp)
	until := began.Add(r.length)
	var group sync.WaitGroup
	for _, each := range classes {
		for client := range each.clients {
			group.Go(func() { r.closed(each, uint64(client)<<40, until) })
		}
		if each.rate > 0 {
			group.Go(func() { r.open(each, began, until, &group) })
		}
	}
	group.Wait()
	seconds := (r.length - r.warmUp).Seconds()
	for _, step := range r.report {
		for _, ending := range step.Endings {
			ending.sum(seconds)
		}
	}
	return r.report
}

func (r *run) closed(each class, index uint64, until time.Time) {
	for time.Now().Before(until) {
		index++
		each.call(index, r.noting(each.name, time.Time{}))
	}
}

// open begins each call when it is due, whatever has become of those before.
func (r *run) open(each class, began, until time.Time, group *sync.WaitGroup) {
	var sent uint64
	for now := began; now.Before(until); now = time.Now() {
		for due := uint64(now.Sub(began).Seconds() * each.rate); sent < due; sent++ {
			at := began.Add(time.Duration(float64(sent) / each.rate * float64(time.Second)))
			if r.underWay.Load() >= underWayMax {
				r.unsent(each.name, at)
				continue
			}
			r.underWay.Add(1)
			index := sent
			group.Go(func() {
				defer r.underWay.Add(-1)
				each.call(index, r.noting(each.name, at))
			})
		}
		time.Sleep(time.Millisecond)
	}
}

// noting returns what notes the steps of one call. The first counts from when it was due (`at`).
func (r *run) noting(name string, at time.Time) func(string, time.Time, error) {
	return func(step string, began time.Time, err error) {
		if !at.IsZero() {
			began, at = at, time.Time{}
		}
		took := time.Since(began)
		if began.Before(r.counted) {
			return
		}
		r.notes.Lock()
		defer r.notes.Unlock()
		found := r.of(name + "_" + step)
		how := ending(err)
		if found.Endings[how] == nil {
			found.Endings[how] = &endings{}
		}
		found.Endings[how].took = append(found.Endings[how].took, took)
	}
}

func (r *run) unsent(name string, at time.Time) {
	if !at.Before(r.counted) {
		r.notes.Lock()
		defer r.notes.Unlock()
		r.of(name).Unsent++
	}
}

func (r *run) of(name string) *steps {
	if r.report[name] == nil {
		r.report[name] = &steps{Endings: map[string]*endings{}}
	}
	return r.report[name]
}

func (e *endings) sum(seconds float64) {
	slices.Sort(e.took)
	e.Count = len(e.took)
	e.PerSecond = float64(e.Count) / seconds
	e.P50, e.P99, e.Max = e.quantile(0.50), e.quantile(0.99), e.quantile(1)
}

func (e *endings) quantile(part float64) float64 {
	at := min(int(part*float64(len(e.took))), len(e.took)-1)
	return float64(e.took[at].Microseconds()) / 1e3
}
