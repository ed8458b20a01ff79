"""Runs the tests of clients against one server; prints TAP. PONDER names the program."""
import sys
import unittest

import serving

import test_litellm
import test_ollama
import test_openai
import test_replays


class Tap(unittest.TestResult):
    count = 0

    def line(self, test, ok, error=None):
        self.count += 1
        print("ok" if ok else "not ok", self.count, test.id(), flush=True)
        if error:
            print("# " + "\n# ".join(self._exc_info_to_string(error, test).strip().split("\n")), flush=True)

    def addSuccess(self, test):
        self.line(test, True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.line(test, False, err)

    def addError(self, test, err):
        super().addError(test, err)
        self.line(test, False, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.line(subtest, False, err)


def main():
    server = serving.Server()
    modules = (test_openai, test_ollama, test_litellm, test_replays)
    suite = unittest.TestSuite()
    for m in modules:
        for case in vars(m).values():
            if isinstance(case, type) and issubclass(case, unittest.TestCase):
                case.server = server
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(m))
    if len(sys.argv) > 1:
        suite = unittest.TestSuite(t for m in suite for c in (m if isinstance(m, unittest.TestSuite) else [m]) for t in (c if isinstance(c, unittest.TestSuite) else [c]) if sys.argv[1] in t.id())
    result = Tap()
    suite.run(result)
    status = server.stop()
    result.count += 1
    print("ok" if status == 0 else "not ok", result.count, "the server ends with status", status)
    if status or not result.wasSuccessful():
        print("# " + "# ".join(server.log[-40:]))
    return 0 if status == 0 and result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
