#!/usr/bin/env python3
"""Draws a flame graph as SVG from what `perf script` prints: `perf script -i perf.data --no-inline | scripts/flame.py TITLE > flame.svg`.

Width is the share of samples; a frame's whole name and share show on hover. Frames below a part in five hundred are left out.
"""

import re
import sys
from collections import Counter
from html import escape

WIDTH, ROW, PAD = 1400, 17, 40
SMALLEST = 1 / 500


def short(frame):
    frame = re.sub(r"\+0x[0-9a-f]+$", "", frame)
    frame = re.sub(r"::h[0-9a-f]{16}$", "", frame)
    frame = frame.replace("{{closure}}", "{}")
    # Type parameters make names long, and say little here.
    while True:
        shorter = re.sub(r"<[^<>]*>", "", frame)
        if shorter == frame or not shorter.strip(":"):
            return frame
        frame = shorter


def stacks(lines):
    counts, command, frames = Counter(), None, []
    for line in list(lines) + [""]:
        if not line.strip():
            if command and frames:
                counts[(command, *reversed(frames))] += 1
            command, frames = None, []
        elif line[0] not in " \t":
            command = line.split()[0]
        else:
            found = re.match(r"\s+[0-9a-f]+ (.*) \([^)]*\)$", line.rstrip())
            # A frame without a name is a hole in the unwinder's knowledge.
            if found and found.group(1) != "[unknown]":
                frames.append(short(found.group(1)))
    return counts


def tree(counts):
    root = {"n": 0, "of": {}}
    for stack, n in counts.items():
        root["n"] += n
        node = root
        for frame in stack:
            node = node["of"].setdefault(frame, {"n": 0, "of": {}})
            node["n"] += n
    return root


def depth(node, total):
    kept = [depth(child, total) for child in node["of"].values() if child["n"] / total >= SMALLEST]
    return 1 + max(kept, default=0)


def draw(node, name, left, level, total, height, out):
    width = node["n"] / total * (WIDTH - 2 * PAD)
    y = height - PAD - (level + 1) * ROW
    kernel = re.match(r"(__|do_|sys_|entry_|tcp_|ip_|unix_|sock_|vfs_|schedule|_raw|net_|asm_)", name)
    hue = 200 + hash_of(name) % 25 if kernel else 20 + hash_of(name) % 35
    text = escape(name if len(name) * 6.6 < width else name[: max(0, int(width / 6.6) - 1)])
    out.append(
        '<g><title>%s: %.1f %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="hsl(%d,75%%,72%%)" rx="1"/>'
        '<text x="%.1f" y="%d">%s</text></g>'
        % (escape(name), 100 * node["n"] / total, left, y, max(width - 0.5, 0.5), ROW - 1, hue, left + 3, y + 12, text)
    )
    for child, below in sorted(node["of"].items()):
        if below["n"] / total >= SMALLEST:
            draw(below, child, left, level + 1, total, height, out)
            left += below["n"] / total * (WIDTH - 2 * PAD)


def hash_of(name):
    return sum(ord(letter) * (place + 7) for place, letter in enumerate(name))


def main():
    root = tree(stacks(sys.stdin))
    if not root["n"]:
        sys.exit("no samples on standard input")
    height = depth(root, root["n"]) * ROW + 2 * PAD
    out = []
    draw(root, "all (%d samples)" % root["n"], PAD, 0, root["n"], height, out)
    title = escape(" ".join(sys.argv[1:]) or "flame graph")
    print(
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="11">'
        '<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="24" font-size="15">%s</text>%s</svg>'
        % (WIDTH, height, PAD, title, "\n".join(out))
    )


if __name__ == "__main__":
    main()
