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

package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var (
	machineA = types.NamespacedName{Namespace: "home", Name: "a"}
	machineB = types.NamespacedName{Namespace: "home", Name: "b"}
)

type requests = workqueue.TypedRateLimitingInterface[reconcile.Request]

// startRunner starts a runner inside a synctest bubble, whose end fails the test if a goroutine is left over.
func startRunner(t *testing.T, limit int) (*Runner, requests, func()) {
	t.Helper()
	runner := NewRunner(limit)
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	ctx, cancel := context.WithCancel(t.Context())
	if err := runner.Source().Start(ctx, queue); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- runner.Start(ctx) }()
	synctest.Wait()
	return runner, queue, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		queue.ShutDown()
	}
}

// woken empties the queue and returns the names in it.
func woken(queue requests) []string {
	synctest.Wait()
	names := []string{}
	for queue.Len() > 0 {
		request, _ := queue.Get()
		queue.Done(request)
		names = append(names, request.Name)
	}
	slices.Sort(names)
	return names
}

func expectWoken(t *testing.T, queue requests, want ...string) {
	t.Helper()
	if got := woken(queue); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("woken: %v, want %v", got, want)
	}
}

func TestOneRunForManyWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 4)
		defer stop()
		var runs atomic.Int32
		release := make(chan struct{})
		work := func(context.Context, func(Progress)) error {
			runs.Add(1)
			<-release
			return nil
		}
		var callers sync.WaitGroup
		for i := range 50 {
			callers.Go(func() {
				runner.Ensure("image", "kvm1", types.NamespacedName{Name: fmt.Sprintf("m%02d", i)}, work)
			})
		}
		callers.Wait()
		expectWoken(t, queue)
		if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Running || status.Started.IsZero() {
			t.Errorf("status is %+v, want Running", status)
		}

		close(release)
		if got := woken(queue); len(got) != 51 {
			t.Errorf("%d waiters were woken, want 51", len(got))
		}
		if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Succeeded || status.Err != nil {
			t.Errorf("status is %+v, want Succeeded", status)
		}
		if runs.Load() != 1 {
			t.Errorf("the task ran %d times", runs.Load())
		}

		runner.Forget("image")
		runner.Ensure("image", "kvm1", machineA, work)
		expectWoken(t, queue, "a")
		if runs.Load() != 2 {
			t.Errorf("the task ran %d times after Forget, want 2", runs.Load())
		}
	})
}

func TestFailureBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 4)
		defer stop()
		runs, failure := 0, errors.New("no route to host")
		work := func(context.Context, func(Progress)) error {
			runs++
			if runs <= 7 {
				return failure
			}
			return nil
		}
		for run, delay := range []time.Duration{30, 60, 120, 240, 480, 600, 600} {
			delay *= time.Second
			if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Running || status.Err != nil {
				t.Fatalf("run %d: status is %+v, want Running", run, status)
			}
			expectWoken(t, queue, "a")
			status := runner.Ensure("image", "kvm1", machineB, work)
			if status.State != Failed || !errors.Is(status.Err, failure) || !status.RetryAt.Equal(status.Ended.Add(delay)) {
				t.Fatalf("run %d: status is %+v, want Failed for %s", run, status, delay)
			}
			time.Sleep(delay - time.Millisecond)
			expectWoken(t, queue)
			if status := runner.Ensure("image", "kvm1", machineB, work); status.State != Failed {
				t.Fatalf("run %d: it started again before its back-off ended: %+v", run, status)
			}
			time.Sleep(time.Millisecond)
			expectWoken(t, queue, "a", "b")
		}
		runner.Ensure("image", "kvm1", machineA, work)
		expectWoken(t, queue, "a")
		if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Succeeded || runs != 8 {
			t.Errorf("status after %d runs is %+v", runs, status)
		}
	})
}

func TestForgetEndsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 4)
		defer stop()
		fail := func(context.Context, func(Progress)) error { return errors.New("no") }
		runner.Ensure("image", "kvm1", machineA, fail)
		expectWoken(t, queue, "a")
		runner.Forget("image")
		if status := runner.Ensure("image", "kvm1", machineB, fail); status.State != Running {
			t.Errorf("status is %+v, want Running", status)
		}
		expectWoken(t, queue, "b")
	})
}

func TestProgressWakesEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 4)
		defer stop()
		work := func(_ context.Context, report func(Progress)) error {
			for i := range int64(100) {
				time.Sleep(100 * time.Millisecond)
				report(Progress{Done: i + 1, Total: 100})
			}
			return nil
		}
		runner.Ensure("image", "kvm1", machineA, work)
		for _, done := range []int64{20, 40, 60, 80} {
			time.Sleep(1950 * time.Millisecond)
			expectWoken(t, queue)
			time.Sleep(50 * time.Millisecond)
			expectWoken(t, queue, "a")
			status := runner.Ensure("image", "kvm1", machineA, work)
			if status.State != Running || status.Progress.Total != 100 || status.Progress.Done < done-1 || status.Progress.Done > done {
				t.Errorf("status is %+v, want about %d of 100", status, done)
			}
		}
		time.Sleep(2 * time.Second)
		expectWoken(t, queue, "a")
		if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Succeeded || status.Ended.Sub(status.Started) != 10*time.Second {
			t.Errorf("status is %+v", status)
		}
		time.Sleep(time.Minute)
		expectWoken(t, queue)
	})
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 2)
		defer stop()
		var running, most atomic.Int32
		work := func(context.Context, func(Progress)) error {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		}
		for i := range 6 {
			status := runner.Ensure(fmt.Sprint("image", i), "kvm1", machineA, work)
			if status.State != Running || status.Started.IsZero() != (i >= 2) {
				t.Errorf("task %d: status is %+v", i, status)
			}
		}
		time.Sleep(3 * time.Second)
		expectWoken(t, queue, "a")
		for i := range 6 {
			if status := runner.Ensure(fmt.Sprint("image", i), "kvm1", machineA, work); status.State != Succeeded {
				t.Errorf("task %d: status is %+v", i, status)
			}
		}
		if most.Load() != 2 {
			t.Errorf("%d tasks ran at once, want 2", most.Load())
		}
	})
}

// TestGroups has the tasks of one group hang: those of another go on.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 2)
		defer stop()
		hang := func(ctx context.Context, _ func(Progress)) error {
			<-ctx.Done()
			return ctx.Err()
		}
		work := func(context.Context, func(Progress)) error { return nil }
		for i := range 10 {
			status := runner.Ensure(fmt.Sprint("hangs", i), "dead", machineA, hang)
			if status.Started.IsZero() != (i >= 2) {
				t.Errorf("task %d of the dead group: status is %+v", i, status)
			}
		}
		for i := range 10 {
			runner.Ensure(fmt.Sprint("works", i), "alive", machineB, work)
			expectWoken(t, queue, "b")
			if status := runner.Ensure(fmt.Sprint("works", i), "alive", machineB, work); status.State != Succeeded {
				t.Errorf("task %d of the other group: status is %+v", i, status)
			}
		}
	})
}

func TestStopCancelsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, _, stop := startRunner(t, 1)
		work := func(ctx context.Context, _ func(Progress)) error {
			<-ctx.Done()
			return ctx.Err()
		}
		runner.Ensure("runs", "kvm1", machineA, work)
		runner.Ensure("waits", "kvm1", machineB, work)
		synctest.Wait()
		stop()
		if status := runner.Ensure("runs", "kvm1", machineA, work); status.State != Failed || !errors.Is(status.Err, context.Canceled) {
			t.Errorf("status is %+v, want Failed", status)
		}
		if status := runner.Ensure("waits", "kvm1", machineB, work); status.State != Running || !status.Started.IsZero() {
			t.Errorf("status is %+v, want one that never ran", status)
		}
	})
}

func TestTasksWaitForStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner := NewRunner(0)
		ran := false
		runner.Ensure("image", "kvm1", machineA, func(context.Context, func(Progress)) error { ran = true; return nil })
		synctest.Wait()
		if ran {
			t.Error("the task ran before Start")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- runner.Start(ctx) }()
		synctest.Wait()
		if !ran {
			t.Error("the task did not run after Start")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := runner.Start(ctx); err == nil {
			t.Error("a second Start succeeded")
		}
	})
}

func TestPanicIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, queue, stop := startRunner(t, 1)
		defer stop()
		work := func(context.Context, func(Progress)) error { panic("broken") }
		runner.Ensure("image", "kvm1", machineA, work)
		expectWoken(t, queue, "a")
		if status := runner.Ensure("image", "kvm1", machineA, work); status.State != Failed || status.Err == nil {
			t.Errorf("status is %+v, want Failed", status)
		}
	})
}

func TestOldOutcomesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner, _, stop := startRunner(t, 1)
		defer stop()
		work := func(context.Context, func(Progress)) error { return nil }
		runner.Ensure("old", "kvm1", machineA, work)
		time.Sleep(2 * time.Hour)
		runner.Ensure("new", "kvm1", machineA, work)
		if len(runner.entries) != 1 {
			t.Errorf("%d outcomes are remembered, want 1", len(runner.entries))
		}
	})
}
