"""python -m unittest, with GRUG_TEST_MODEL naming a small model with a context of 32 bytes, and GRUG_TEST_MODEL_END one
with the end byte 10."""

import gc
import math
import os
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
        with self.assertRaises(grug.GrugError):
            grug.Model(MODEL, device="cuda:9")


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
