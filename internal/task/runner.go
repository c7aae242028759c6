/*
Copyright 2026 The cluster-api-provider-libvirt Authors.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

// Package task runs slow work, such as an image transfer, beside the reconcilers: one operation per key however
// many objects wait for it, and every waiting object is reconciled again when there is news.
package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	// DefaultLimit is how many tasks of a group a Runner runs at once unless it is told otherwise.
	DefaultLimit = 2

	progressInterval = 2 * time.Second
	firstBackOff     = 30 * time.Second
	longestBackOff   = 10 * time.Minute

	// keepEnded is for how long the outcome of a task that nobody asks for is remembered.
	keepEnded = time.Hour
)

// Func is the work of a task. It returns when ctx ends, and it may call report as often as it likes.
type Func func(ctx context.Context, report func(Progress)) error

// Runner runs at most one task per key, and a bounded number of tasks of each group at once: a group whose tasks hang,
// such as those of one host, holds up no other. It is safe for concurrent use.
type Runner struct {
	limit int

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // The life of the runner, which is the life of its tasks.
	queues  []workqueue.TypedRateLimitingInterface[reconcile.Request]
	entries map[string]*entry
	pending []*entry
	// active counts the tasks that run, by group.
	active  map[string]int
	stopped bool
	tasks   sync.WaitGroup
}

// entry is what a Runner knows about one key.
type entry struct {
	group    string
	run      Func
	status   Status
	waiters  map[types.NamespacedName]struct{}
	failures int
	lastWake time.Time
	// timer is the next wake-up that is due: for progress while running, for the end of the back-off afterwards.
	timer *time.Timer
}

// NewRunner returns a Runner that runs at most limit tasks of a group at once. Tasks begin to run with Start.
func NewRunner(limit int) *Runner {
	if limit < 1 {
		limit = DefaultLimit
	}
	return &Runner{limit: limit, entries: map[string]*entry{}, active: map[string]int{}}
}

// Start runs tasks until ctx ends, cancels those that run and returns when they have ended.
func (r *Runner) Start(ctx context.Context) error {
	r.mu.Lock()
	if r.ctx != nil {
		r.mu.Unlock()
		return errors.New("starting the task runner: it was started before")
	}
	r.ctx = ctx
	r.dispatch()
	r.mu.Unlock()

	<-ctx.Done()
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.tasks.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		e.stopTimer()
	}
	return nil
}

// Source wakes the waiters of every task by adding them to the queue of the controller that watches it: at the end
// of the task, at most every two seconds while it makes progress, and when it may be tried again.
func (r *Runner) Source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.queues = append(r.queues, queue)
		return nil
	})
}

// Ensure makes sure that the task of this key runs or has succeeded, and tells how it stands. The waiter is woken
// when that changes. A task that failed starts again with the first Ensure after its back-off; until then Ensure
// returns the failure. A task that succeeded stays so until Forget, so run must be idempotent: outcomes that nobody
// asks for are forgotten after an hour. A task counts among those of the group of its first Ensure.
func (r *Runner) Ensure(key, group string, waiter types.NamespacedName, run Func) Status {
	r.mu.Lock()
	defer r.mu.Unlock()

	e := r.entries[key]
	now := time.Now()
	switch {
	case e == nil:
		r.sweep(now)
		e = &entry{group: group, waiters: map[types.NamespacedName]struct{}{}}
		r.entries[key] = e
		r.enqueue(e, run)
	case e.status.State == Failed && !now.Before(e.status.RetryAt):
		r.enqueue(e, run)
	}
	if e.status.State != Succeeded {
		e.waiters[waiter] = struct{}{}
	}
	return e.status
}

// Forget drops the outcome of a task, so that the next Ensure runs it at once. A task that runs goes on.
func (r *Runner) Forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[key]; e != nil && e.status.State != Running {
		e.stopTimer()
		delete(r.entries, key)
	}
}

// enqueue lets e run as soon as there is room. The caller holds the lock.
func (r *Runner) enqueue(e *entry, run Func) {
	e.stopTimer()
	e.run = run
	e.status = Status{State: Running}
	r.pending = append(r.pending, e)
	r.dispatch()
}

// dispatch starts the pending tasks of whose groups few enough run, oldest first. The caller holds the lock.
func (r *Runner) dispatch() {
	if r.ctx == nil || r.stopped || r.ctx.Err() != nil {
		return
	}
	r.pending = slices.DeleteFunc(r.pending, func(e *entry) bool {
		if r.active[e.group] >= r.limit {
			return false
		}
		r.active[e.group]++
		e.status.Started = time.Now()
		e.lastWake = e.status.Started
		r.tasks.Go(func() { r.execute(e) })
		return true
	})
}

func (r *Runner) execute(e *entry) {
	err := call(r.ctx, e.run, func(p Progress) { r.progress(e, p) })

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.active[e.group]--; r.active[e.group] == 0 {
		delete(r.active, e.group)
	}
	e.run = nil
	e.stopTimer()
	e.status.Ended = time.Now()
	if err == nil {
		e.status.State = Succeeded
		e.failures = 0
		r.wake(e)
		clear(e.waiters)
	} else {
		delay := backOff(e.failures)
		e.failures++
		e.status.State, e.status.Err, e.status.RetryAt = Failed, err, e.status.Ended.Add(delay)
		r.wake(e)
		if !r.stopped {
			r.wakeAfter(e, delay)
		}
	}
	r.dispatch()
}

// call runs the task; a panic in it must not take down every controller of the process.
func call(ctx context.Context, run Func, report func(Progress)) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("running the task: panic: %v", cause)
			log.FromContext(ctx).Error(err, "Task panicked", "stack", string(debug.Stack()))
		}
	}()
	return run(ctx, report)
}

func (r *Runner) progress(e *entry, p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.status.State != Running || e.status.Progress == p {
		return
	}
	e.status.Progress = p
	if e.timer == nil {
		r.wakeAfter(e, max(0, progressInterval-time.Since(e.lastWake)))
	}
}

// wakeAfter wakes e's waiters after a while, unless its timer is stopped before. The caller holds the lock.
func (r *Runner) wakeAfter(e *entry, delay time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.timer != timer {
			return // stopped when it had already fired
		}
		e.timer = nil
		r.wake(e)
		if e.status.State == Failed {
			clear(e.waiters) // whoever still wants the task asks again
		}
	})
	e.timer = timer
}

// wake adds e's waiters to the queues. The caller holds the lock.
func (r *Runner) wake(e *entry) {
	e.lastWake = time.Now()
	for _, queue := range r.queues {
		for waiter := range e.waiters {
			queue.Add(reconcile.Request{NamespacedName: waiter})
		}
	}
}

// sweep forgets outcomes that nobody has asked for in a long time. The caller holds the lock.
func (r *Runner) sweep(now time.Time) {
	for key, e := range r.entries {
		if e.status.State != Running && now.Sub(e.status.Ended) > keepEnded {
			e.stopTimer()
			delete(r.entries, key)
		}
	}
}

func (e *entry) stopTimer() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}
