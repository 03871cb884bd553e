# SPDX-License-Identifier: GPL-2.0
"""Tests of how a report of nvlink2-trial is compared with the example in the documents."""

import copy
import json
import unittest

from emulib.checks import tests


class Structure(unittest.TestCase):
    def setUp(self):
        self.report = json.loads(tests.EXAMPLE.read_text(encoding="utf-8"))

    def fact(self, report):
        return next(step for step in report["steps"] if step.get("facts"))["facts"][0]

    def test_what_is_said_is_no_part_of_it(self):
        other = copy.deepcopy(self.report)
        self.fact(other)["value"] = "something else"
        other["begun"] = "another time"
        self.assertEqual(tests.structure(self.report), tests.structure(other))

    def test_another_machine_has_the_same(self):
        other = json.loads(json.dumps(self.report).replace("0004:05:00.0", "0035:04:00.0").replace("link 5", "link 11"))
        self.assertNotEqual(self.report, other)
        self.assertEqual(tests.structure(self.report), tests.structure(other))

    def test_each_thing_that_is_looked_at_is(self):
        whole = tests.structure(self.report)
        for change in (lambda report: self.fact(report).update(what="another register"),
                       lambda report: report["steps"].pop(),
                       lambda report: report["assumptions"].pop(),
                       lambda report: report.pop("machine"),
                       lambda report: report["steps"][0].update(verdict="failed"),
                       lambda report: report["steps"][0]["texts"].popitem(),
                       lambda report: report["steps"][1]["findings"].pop()):
            other = copy.deepcopy(self.report)
            change(other)
            self.assertNotEqual(whole, tests.structure(other))


if __name__ == "__main__":
    unittest.main()
