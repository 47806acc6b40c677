package grug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// GRUG_TEST_MODEL names a small model with a context of 32 bytes, GRUG_TEST_MODEL_END one with the end byte 10.
func load1(t *testing.T) *Model {
	t.Helper()
	return must(Load(context.Background(), os.Getenv("GRUG_TEST_MODEL"), &ModelOptions{Threads: 1}))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func warm(seed uint64) *Sampler {
	return must(NewSampler(SamplerOptions{Temperature: 1, Seed: seed}))
}

func text(t *testing.T, s *Session, seed uint64, n int64) []byte {
	t.Helper()
	return must(io.ReadAll(s.Reader(context.Background(), warm(seed), Generation{MaxBytes: n, ChunkBytes: 16})))
}

func TestModels(t *testing.T) {
	if devices := must(Devices()); len(devices) == 0 || devices[0].Name != "cpu" {
		t.Error(devices)
	}
	m := load1(t)
	info := must(m.Info())
	if info.ContextBytes != 32 || info.EndByte != -1 || info.WeightBytes != 4*info.Params {
		t.Error(info)
	}
	if must(m.Metadata())["note"] != "for tests" {
		t.Error(m.Metadata())
	}
	file := must(os.ReadFile(os.Getenv("GRUG_TEST_MODEL")))
	a, b := must(m.NewSession(nil)), must(must(LoadBytes(context.Background(), file, nil)).NewSession(nil))
	if must(a.Logits()) != must(b.Logits()) {
		t.Error("a copy of the file says something else")
	}
	m.Close()
	m.Close()
	fmt.Fprint(a, "a session outlives its model")
	if _, err := m.NewSession(nil); err != ErrClosed {
		t.Error(err)
	}
	a.Close()
	if _, err := a.Write([]byte("x")); err != ErrClosed {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	_, err := Load(context.Background(), "no-such-model", nil)
	if !errors.Is(err, ErrIO) || errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "no-such-model") {
		t.Error(err)
	}
	if _, err = LoadBytes(context.Background(), []byte("no model"), nil); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err = LoadBytes(context.Background(), nil, nil); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err = NewSampler(SamplerOptions{Temperature: -1}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err = Load(context.Background(), os.Getenv("GRUG_TEST_MODEL"), &ModelOptions{Device: "cuda:9"}); !errors.Is(err, ErrDevice) {
		t.Error(err)
	}
	// C would end these at the NUL, and has no more than 32 bits for the last.
	if _, err = Load(context.Background(), os.Getenv("GRUG_TEST_MODEL")+"\x00.old", nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for _, o := range []ModelOptions{{Device: "cpu\x00"}, {Threads: -1}, {Threads: 1<<32 + 1}} {
		if _, err = Load(context.Background(), os.Getenv("GRUG_TEST_MODEL"), &o); !errors.Is(err, ErrInvalid) {
			t.Error(o, err)
		}
	}
	s := must(load1(t).NewSession(&SessionOptions{NoSlide: true}))
	if n, err := s.Write(make([]byte, 33)); n != 0 || !errors.Is(err, ErrFull) {
		t.Error(n, err)
	}
}

func TestEveryWayToGenerateIsTheSame(t *testing.T) {
	ctx := context.Background()
	s := must(load1(t).NewSession(nil))
	fmt.Fprint(s, "hello")
	want := text(t, s, 3, 50)
	if len(want) != 50 || must(s.Position()) != 55 {
		t.Fatal(len(want))
	}
	restart := func() *Sampler {
		s.Reset()
		fmt.Fprint(s, "hello")
		return warm(3)
	}
	var got []byte
	for b, err := range s.Bytes(ctx, restart(), Generation{MaxBytes: 50}) {
		got = append(got, must(b, err))
	}
	if !bytes.Equal(got, want) {
		t.Error("Bytes")
	}
	sampler := restart()
	for i := range want {
		if must(s.Next(ctx, sampler)) != want[i] {
			t.Fatal("Next", i)
		}
	}
	sampler = restart()
	for i := range want {
		logits := must(s.Logits())
		b := must(sampler.Pick(&logits))
		if b != want[i] {
			t.Fatal("Pick", i)
		}
		s.Write([]byte{b})
	}
}

func TestStops(t *testing.T) {
	s := must(load1(t).NewSession(nil))
	all := text(t, s, 1, 60)
	end := bytes.Index(all, all[20:23]) + 3
	s.Reset()
	r := s.Reader(context.Background(), warm(1), Generation{Stops: [][]byte{[]byte("\xff\xff\xff\xff"), all[20:23]}})
	if got := must(io.ReadAll(r)); !bytes.Equal(got, all[:end]) || r.Reason != StopSequence {
		t.Error(got, r.Reason)
	}
	for _, none := range [][]byte{nil, {}, all[3:3]} {
		if _, err := io.ReadAll(s.Reader(context.Background(), nil, Generation{Stops: [][]byte{none}})); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	ends := must(must(Load(context.Background(), os.Getenv("GRUG_TEST_MODEL_END"), nil)).NewSession(nil))
	r = ends.Reader(context.Background(), warm(0), Generation{})
	if got := must(io.ReadAll(r)); got[len(got)-1] != 10 || r.Reason != StopEndByte {
		t.Error(got, r.Reason)
	}
}

func TestScoreForkRewindState(t *testing.T) {
	ctx := context.Background()
	m := load1(t)
	s := must(m.NewSession(nil))
	nats := make([]float32, 8)
	total := must(s.Score(ctx, []byte("score me"), nats))
	sum := 0.0
	for _, n := range nats {
		sum += float64(n)
	}
	if math.Abs(total-sum) > 1e-3 || total <= 0 {
		t.Error(total, sum)
	}
	if _, err := s.Score(ctx, []byte("abc"), nats); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	state := must(s.MarshalBinary())
	want := text(t, s, 5, 20)
	if err := s.Rewind(20); err != nil || !bytes.Equal(text(t, s, 5, 20), want) {
		t.Error("rewind", err)
	}
	restored := must(m.NewSession(nil))
	if err := restored.UnmarshalBinary(state); err != nil || !bytes.Equal(text(t, restored, 5, 20), want) {
		t.Error("restore", err)
	}
	if err := s.Rewind(1000); !errors.Is(err, ErrRewind) {
		t.Error(err)
	}
	if err := s.UnmarshalBinary(state[1:]); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if err := s.Embedding(make([]float32, must(m.Info()).EmbeddingDim)); err != nil {
		t.Error(err)
	}
	sampler := warm(1)
	logits := must(s.Logits())
	sampler.Pick(&logits)
	fork := must(sampler.Fork())
	for range 20 {
		if must(fork.Pick(&logits)) != must(sampler.Pick(&logits)) {
			t.Fatal("fork")
		}
	}
}

func TestContextCancelsAndASecondCallIsBusy(t *testing.T) {
	s := must(load1(t).NewSession(nil))
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		sampler := warm(0)
		for {
			_, err := io.ReadAll(s.Reader(ctx, sampler, Generation{ChunkBytes: 1 << 24}))
			if !errors.Is(err, ErrBusy) {
				failed <- err
				return
			}
		}
	}()
	for {
		if _, err := s.Write([]byte("x")); errors.Is(err, ErrBusy) {
			break
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The session goes on, and a context that is done already starts nothing.
	if _, err := s.Write([]byte("on")); err != nil {
		t.Error(err)
	}
	if _, err := s.Feed(ctx, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	late, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	_, err := io.Copy(io.Discard, s.Reader(late, nil, Generation{}))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// A cause of its own, as signal.NotifyContext gives, comes along, before a call and during one.
	cause := errors.New("the reader left")
	because, left := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { left(cause) })
	for range 2 {
		_, err := io.Copy(io.Discard, s.Reader(because, nil, Generation{}))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Error(err)
		}
	}
}

func TestManyGoroutinesShareAModel(t *testing.T) {
	m := load1(t)
	want := text(t, must(m.NewSession(nil)), 9, 100)
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			s := must(m.NewSession(nil))
			defer s.Close()
			if !bytes.Equal(text(t, s, 9, 100), want) {
				t.Error("another text")
			}
		}()
	}
	group.Wait()
}
