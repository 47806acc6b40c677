"""python -m unittest, with GRUG_TEST_MODEL naming a small model with a context of 32 bytes, and GRUG_TEST_MODEL_END one
with the end byte 10."""

import ctypes
import gc
import json
import logging
import math
import os
import pickle
import re
import threading
import unittest
from array import array
from pathlib import Path

import grug

MODEL = os.environ["GRUG_TEST_MODEL"]
MODEL_END = os.environ["GRUG_TEST_MODEL_END"]


def warm(seed=0):
    return grug.Sampler(temperature=1.0, seed=seed)


class Models(unittest.TestCase):
    def test_from_path_and_from_bytes(self):
        data = Path(MODEL).read_bytes()
        with grug.Model(MODEL) as a, grug.Model(Path(MODEL), mmap=False, threads=1) as b, grug.Model(data) as c:
            logits = [grug.Session(m).logits() for m in (a, b, c)]
            self.assertEqual(logits[0], logits[1])
            self.assertEqual(logits[0], logits[2])
            self.assertEqual(grug.Session(grug.Model(bytearray(data))).logits(), logits[0])

    def test_info_and_metadata(self):
        model = grug.Model(MODEL)
        self.assertEqual(model.info.context_bytes, 32)
        self.assertEqual(model.info.weight_bytes, 4 * model.info.n_params)
        self.assertIsNone(model.info.end_byte)
        self.assertEqual(grug.Model(MODEL_END).info.end_byte, 10)
        self.assertEqual(model.metadata["note"], "for tests")
        self.assertRegex(grug.version(), r"^\d+\.\d+")

    def test_devices(self):
        self.assertEqual(grug.devices()[0].name, "cpu")
        grug.Model(MODEL, device=grug.devices()[0].name)

    def test_errors_are_named(self):
        with self.assertRaises(grug.FileError) as caught:
            grug.Model("no-such-model")
        self.assertIn("no-such-model", str(caught.exception))
        self.assertEqual(caught.exception.name, "GRUG_EIO")
        self.assertIsInstance(caught.exception, OSError)
        with self.assertRaises(grug.FormatError):
            grug.Model(b"no model")
        with self.assertRaises(grug.InvalidArgumentError) as caught:
            grug.Sampler(temperature=-1)
        self.assertIn("temperature", str(caught.exception))
        with self.assertRaises(grug.DeviceError):
            grug.Model(MODEL, device="cuda:9")
        # Another process gets what this one raised.
        copy = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual((type(copy), str(copy), copy.name), (type(caught.exception), str(caught.exception), caught.exception.name))

    def test_what_c_would_cut_is_refused(self):
        model = grug.Model(MODEL)
        session = grug.Session(model)
        session.feed("hello")
        for refused in (
            lambda: grug.Model(f"{MODEL}\0.old"),
            lambda: grug.Model(MODEL, device="cpu\0"),
            lambda: grug.Model(MODEL, threads=-1),
            lambda: grug.Model(MODEL, threads=(1 << 32) + 1),
            lambda: grug.Session(model, max_context=1 << 64),
            lambda: session.rewind((1 << 64) + 1),
            lambda: session.generate(max_bytes=-1),
            lambda: list(session.stream_bytes(max_bytes=5, chunk_bytes=0)),
            lambda: model.compress(b"", max_context=-1),
        ):
            self.assertRaises(ValueError, refused)
        self.assertEqual(session.position, 5)

    def test_what_no_byte_is_and_what_is_closed_is_refused(self):
        sampler, session, closed = warm(), grug.Session(grug.Model(MODEL)), grug.Cancel()
        closed.close()
        for refused in (
            lambda: sampler.accept(300),
            lambda: sampler.accept(-1),
            lambda: grug.Sampler(bias={256: 1.0}),
            lambda: grug.Sampler(bias={-1: 1.0}),
            lambda: grug.next_batch([session], input=[256]),
            lambda: grug.next_batch([session], input=[-1]),
            lambda: session.set_cancel(closed),
            lambda: grug.Model(MODEL, cancel=closed),
        ):
            self.assertRaises(ValueError, refused)
        self.assertEqual(session.position, 0)


class Sessions(unittest.TestCase):
    def setUp(self):
        self.model = grug.Model(MODEL, threads=1)

    def test_every_way_to_generate_is_the_same(self):
        session = grug.Session(self.model)
        session.feed("hello")
        text = session.generate(warm(3), max_bytes=50)
        self.assertEqual(len(text), 50)
        self.assertEqual(session.position, 55)

        session.reset()
        session.feed(b"hel")
        session.feed(memoryview(b"lo"))
        sampler = warm(3)
        self.assertEqual(bytes(session.next(sampler) for _ in range(50)), text)

        session.reset()
        session.feed(bytearray(b"hello"))
        self.assertEqual(b"".join(session.stream_bytes(warm(3), max_bytes=50)), text)

        session.reset()
        session.feed(array("B", b"hello"))
        sampler, by_hand = warm(3), bytearray()
        for _ in range(50):
            by_hand.append(sampler.pick(session.logits()))
            session.feed(by_hand[-1:])
        self.assertEqual(bytes(by_hand), text)

        session.reset()
        session.feed("hello")
        self.assertEqual("".join(session.stream(warm(3), max_bytes=50)), text.decode(errors="replace"))

    def test_stops_and_the_end_byte(self):
        session = grug.Session(self.model)
        text = session.generate(warm(1), max_bytes=60)
        wanted = text[20:23]
        end = text.find(wanted) + 3
        session.reset()
        self.assertEqual(session.generate(warm(1), max_bytes=60, stops=[b"\xff" * 9, wanted]), text[:end])
        buffer = bytearray(20000)
        session = grug.Session(grug.Model(MODEL_END))
        n, reason = session.read_into(buffer, warm())
        self.assertEqual((reason, buffer[n - 1]), (grug.Stop.END_BYTE, 10))
        self.assertNotIn(10, buffer[: n - 1])
        with self.assertRaises(TypeError):
            session.read_into(b"read-only")
        with self.assertRaises(grug.InvalidArgumentError):
            session.read_into(buffer, stops=[""])

    def test_scores(self):
        session = grug.Session(self.model)
        nats = array("f", bytes(4 * 8))
        total = session.score("score me", nats)
        self.assertTrue(all(n > 0 for n in nats))
        self.assertAlmostEqual(total, math.fsum(nats), places=3)
        others = (ctypes.c_float * 8)()
        session.reset()
        self.assertEqual(session.score("score me", others), total)
        self.assertEqual(list(others), list(nats))
        session.reset()
        self.assertEqual(session.score(b"score me"), total)
        self.assertEqual(session.score(b""), 0)
        with self.assertRaises(ValueError):
            session.score("abc", nats)

    def test_fork_rewind_save_restore(self):
        session = grug.Session(self.model)
        session.feed("once upon")
        state, fork, sampler = session.save(), session.fork(), warm(4)
        twin = sampler.fork()
        text = session.generate(sampler, max_bytes=20)
        self.assertEqual(fork.generate(twin, max_bytes=20), text)
        session.rewind(20)
        self.assertEqual(session.generate(warm(4), max_bytes=20), text)
        restored = grug.Session(self.model)
        restored.restore(state)
        self.assertEqual(restored.generate(warm(4), max_bytes=20), text)
        with self.assertRaises(grug.RewindError):
            session.rewind(1000)
        with self.assertRaises(grug.FormatError):
            session.restore(state[:-1])
        with self.assertRaises(grug.MismatchError):
            grug.Session(self.model, max_context=16).restore(state)
        self.assertEqual(len(session.embedding(self.model.info.embedding_dim)), self.model.info.embedding_dim)

    def test_a_full_context(self):
        session = grug.Session(self.model, slide=False)
        with self.assertRaises(grug.ContextFullError):
            session.feed(b"x" * 33)
        self.assertEqual(session.position, 0)

    def test_handles_close_in_any_order(self):
        model = grug.Model(MODEL)
        session = grug.Session(model)
        model.close()
        model.close()
        session.feed("a session outlives its model")
        with self.assertRaises(ValueError):
            grug.Session(model)
        with session:
            pass
        with self.assertRaises(ValueError):
            session.feed("closed")
        del model, session
        gc.collect()


class Guided(unittest.TestCase):
    def setUp(self):
        self.session = grug.Session(grug.Model(MODEL, threads=1))

    def test_grammars(self):
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        for grammar, pattern in (
            (grug.Grammar.regex("(19|20)[0-9]{2}"), r"(19|20)\d\d"),
            (grug.Grammar.gbnf('root ::= "<" [a-z]{2,4} ">"'), r"<[a-z]{2,4}>"),
            (grug.Grammar.json_schema(schema), r"\{\s*\"ok\"[\s\S]*\}"),
            (grug.Grammar.json_schema(json.dumps(schema)), r"\{\s*\"ok\"[\s\S]*\}"),
        ):
            with grammar:
                sampler = grug.Sampler(temperature=1, grammar=grammar, utf8=True)
            # The sampler goes on without the grammar's handle.
            text = self.session.generate(sampler).decode()
            self.assertRegex(text, re.compile(f"^{pattern}$"))
            self.assertEqual(self.session.read_into(bytearray(9), sampler), (0, grug.Stop.GRAMMAR))
            with self.assertRaises(ValueError):
                grug.Sampler(grammar=grammar)
        with self.assertRaises(grug.FormatError):
            grug.Grammar.regex("(")
        with self.assertRaises(grug.UnsupportedError):
            grug.Grammar.json_schema({"multipleOf": 2})

    def test_accept_and_allowed(self):
        sampler = grug.Sampler(grammar=grug.Grammar.regex("a[b-d]?"))
        self.assertEqual(sampler.allowed(), (frozenset(b"a"), False))
        with self.assertRaises(grug.DeadEndError):
            sampler.accept(ord("b"))
        sampler.accept(ord("a"))
        self.assertEqual(sampler.allowed(), (frozenset(b"bcd"), True))

    def test_sampler_options(self):
        only = grug.Sampler(temperature=1, bias={b: -math.inf for b in range(256) if b not in b"xy"})
        self.assertEqual(set(self.session.generate(only, max_bytes=40)), set(b"xy"))
        few = [-math.inf] * 256
        few[ord("x")] = few[ord("y")] = few[ord("z")] = 0
        fresh = grug.Sampler(bias=few, penalty_window=2, presence_penalty=1e6)
        text = self.session.generate(fresh, max_bytes=30)
        self.assertTrue(all(len(set(text[i : i + 3])) == 3 for i in range(28)), text)
        steady = grug.Sampler(temperature=1, mirostat_tau=2, mirostat_eta=0.2, seed=4)
        self.assertEqual(len(self.session.generate(steady, max_bytes=50)), 50)
        for wrong in ({"typical_p": 2}, {"mirostat_tau": -1}, {"penalty_window": -1}, {"bias": [0.0]}):
            with self.assertRaises(ValueError):
                grug.Sampler(**wrong)

    def test_utf8(self):
        sampler = grug.Sampler(temperature=2, utf8=True, seed=1)
        self.assertNotIn("\ufffd", "".join(self.session.stream(sampler, max_bytes=200))[:-1])


class Compression(unittest.TestCase):
    def test_round_trip(self):
        model = grug.Model(MODEL, portable=True)
        text = grug.Session(model).generate(max_bytes=300)
        for data in (text, b"", bytes(range(256)), "déjà vu"):
            archive = model.compress(data, max_context=16)
            self.assertEqual(model.decompress(archive), data.encode() if isinstance(data, str) else data)
        archive = model.compress(text)
        self.assertLess(len(archive), 200)
        self.assertEqual(grug.Model(MODEL, portable=True, threads=1).decompress(bytearray(archive)), text)
        with self.assertRaises(grug.SpaceError):
            model.decompress(archive, max_bytes=299)
        with self.assertRaises(grug.FormatError):
            model.decompress(archive[:-1])
        with self.assertRaises(grug.UnsupportedError):
            grug.Model(MODEL).compress(text)
        cancel = grug.Cancel()
        cancel.trigger()
        with self.assertRaises(grug.CanceledError):
            model.compress(text, cancel=cancel)


class Batches(unittest.TestCase):
    def test_as_if_alone(self):
        model = grug.Model(MODEL, threads=1)
        a, b = grug.Session(model), grug.Session(model)
        a.feed("same")
        cancel = grug.Cancel()
        alone = a.fork(cancel)
        samplers = [warm(3), None]
        want = alone.generate(warm(3), max_bytes=20)
        for byte in want:
            self.assertEqual(grug.next_batch([a, b], samplers, [None, ord("x")]), [byte, ord("x")])
        self.assertEqual(b.position, 20)
        cancel.trigger()
        full = grug.Session(model, slide=False)
        full.feed(bytes(32))
        outcomes = grug.next_batch([full, alone, b])
        self.assertIsInstance(outcomes[0], grug.ContextFullError)
        self.assertIsInstance(outcomes[1], grug.CanceledError)
        self.assertIsInstance(outcomes[2], int)
        alone.set_cancel(None)
        self.assertIsInstance(alone.next(), int)
        with self.assertRaises(grug.BusyError):
            grug.next_batch([b, b])
        with self.assertRaises(ValueError):
            grug.next_batch([a, b], [None])
        self.assertEqual(grug.next_batch([]), [])


class Hooks(unittest.TestCase):
    def test_progress(self):
        heard = []
        grug.Model(MODEL, mmap=False, progress=heard.append)
        self.assertEqual(heard, sorted(heard))
        self.assertEqual(heard[-1], 1)
        with self.assertRaises(grug.CanceledError):
            grug.Model(MODEL, progress=lambda fraction: fraction < 0.5)

        def interrupted(_):
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            grug.Model(MODEL, progress=interrupted)

    def test_log(self):
        log = logging.getLogger("grug-test")
        with self.assertLogs(log, logging.DEBUG) as caught:
            session = grug.Session(grug.Model(MODEL, log=log, threads=2))
            gc.collect()
            session.fork().feed("the model is gone, its log is not")
        self.assertTrue(any("2 threads" in line for line in caught.output), caught.output)
        self.assertTrue(any(line.startswith("DEBUG:grug-test:session") for line in caught.output), caught.output)


    def test_a_log_outlives_a_model_that_is_closed_while_a_session_is_made(self):
        lines = []

        class Closing(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())
                if lines[-1].startswith("session"):
                    model.close()

        log = logging.Logger("grug-test", logging.DEBUG)
        log.addHandler(Closing())
        model = grug.Model(MODEL, log=log, threads=1)
        session = grug.Session(model, slide=False)
        gc.collect()
        session.feed(bytes(32))
        del lines[:]
        self.assertIsInstance(grug.next_batch([session])[0], grug.ContextFullError)
        self.assertEqual(len(lines), 1)


class Threads(unittest.TestCase):
    def test_cancel_stops_a_call_and_busy_tells_a_second_one(self):
        model = grug.Model(MODEL, threads=1)
        cancel = grug.Cancel()
        session = grug.Session(model, cancel=cancel)
        buffer = bytearray(1 << 24)
        caught = []

        def endless():
            while True:
                try:
                    session.read_into(buffer, warm())
                except grug.BusyError:
                    continue
                except grug.CanceledError as error:
                    caught.append(error)
                return

        thread = threading.Thread(target=endless)
        thread.start()
        # The GIL is released: this thread runs while the other is inside the library.
        fed = 0
        while True:
            try:
                session.feed("x")
                fed += 1
            except grug.BusyError:
                break
        cancel.trigger()
        thread.join()
        self.assertEqual(session.position, fed + caught[0].written)
        cancel.reset()
        session.feed("again")

        # Of a stream, what was written comes before the error.
        before, seen, pieces = session.position, 0, session.stream_bytes(warm(), chunk_bytes=1 << 24)
        stopper = threading.Timer(0.05, cancel.trigger)
        stopper.start()
        with self.assertRaises(grug.CanceledError):
            for piece in pieces:
                seen += len(piece)
        stopper.join()
        self.assertGreater(seen, 0)
        self.assertEqual(session.position, before + seen)

    def test_closing_during_a_call_waits_for_it(self):
        model = grug.Model(MODEL, threads=1)
        cancel = grug.Cancel()
        session = grug.Session(model, cancel=cancel)
        outcome = []

        def endless():
            try:
                for _ in session.stream_bytes(warm(), chunk_bytes=1 << 16):
                    started.set()
            except (grug.CanceledError, ValueError) as error:
                outcome.append(type(error))

        started = threading.Event()
        thread = threading.Thread(target=endless)
        thread.start()
        started.wait()
        session.close()
        cancel.trigger()
        thread.join()
        self.assertEqual(len(outcome), 1)

    def test_sessions_of_one_model_in_many_threads(self):
        model = grug.Model(MODEL)
        texts = []

        def write():
            texts.append(grug.Session(model).generate(warm(9), max_bytes=100))

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(texts, [texts[0]] * 4)


if __name__ == "__main__":
    unittest.main()
