#!/usr/bin/env python3
"""Writes what Python makes of texts, to which the harness's own rules are held.

    python3 trainer/checks/python_text.py > trainer/tests/fixtures/practice/40-python.json

`str.capitalize` of every character that it changes and of random texts, and HellaSwag's cleaning, the
stripping and the counting of words as lm-evaluation-harness 0.4.13 does them. Made with Python 3.11,
of Unicode 14.
"""
import json
import random
import re
import sys
import unicodedata


def cleaned(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def characters():
    points = (chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000)
    return [c for c in points if unicodedata.category(c) != "Cn"]


def main():
    draw = random.Random(40)
    every = characters()
    changed = [c for c in every if c.capitalize() != c or ("a" + c).capitalize() != "A" + c]
    spaces = [c for c in every if c.isspace()]
    special = list("ΣσςŉßİIıιΑ.'’:\u00ad\u0301\u0345 ab1-ǅა")
    pick = lambda pool, most: "".join(draw.choice(pool) for _ in range(draw.randrange(most)))
    texts = [pick(special, 9) for _ in range(800)] + [pick(changed + special * 20, 7) for _ in range(400)]
    marks = ["[", "]", "\n", " [title]", "[title]", "  ", " ", "a", "B.", "\r", "\u2028"] + spaces[:6]
    scenes = [pick(marks, 14) for _ in range(600)]
    words = [pick(spaces + ["a", "b", "\u200b", "\u180e", "\ufeff"], 8) for _ in range(300)]
    out = {
        "capitalize": [[t, t.capitalize()] for t in changed + texts],
        "preprocess": [[t, cleaned(t)] for t in scenes],
        "words": [[t, t.strip(), t.rstrip(), len(re.split(r"\s+", t))] for t in words],
    }
    print(json.dumps(out, ensure_ascii=False, separators=(",", ":")))


main()
