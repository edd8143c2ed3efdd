"""Small files of the form of public data sets, as their archives unpack."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

USER_FEATURES = [
    *("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"),
    *("follow_user_num", "follow_user_num_range", "fans_user_num", "fans_user_num_range"),
    *("friend_user_num", "friend_user_num_range", "register_days", "register_days_range"),
    *(f"onehot_feat{place}" for place in range(18)),
]
VIDEO_FEATURES = [
    *("author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration"),
    *("server_width", "server_height", "music_id", "music_type", "tag"),
]
LOG = [
    *("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow"),
    *("is_comment", "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms"),
    *("profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand", "tab"),
]


def put(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def log_line(user: int, video: int, click: int, tab: int, time: int = 1_650_000_000_000) -> str:
    held = {"user_id": user, "video_id": video, "is_click": click, "tab": tab, "time_ms": time}
    return ",".join(str(held.get(name, 0)) for name in LOG)


def user_line(user: int, **features: object) -> str:
    held = {name: "[1,10)" if name.endswith("_range") else 1 for name in USER_FEATURES}
    held |= {"user_active_degree": "full_active", "follow_user_num_range": '"(0,10]"'}
    held |= {"fans_user_num_range": '"[1,10)"', "friend_user_num_range": '"[1,5)"'}
    held |= {"register_days_range": "730+"} | features
    return ",".join(map(str, (user, *held.values())))


def video_line(video: int, **features: object) -> str:
    held = dict.fromkeys(VIDEO_FEATURES, 7) | {"video_type": "NORMAL", "tag": '"12,65"'}
    return ",".join(map(str, (video, *(held | features).values())))


def kuairand_files(folder: Path, rows: int = 300, seed: int = 0) -> Path:
    """Two logs of so many rows each, 9 users, 20 videos, tabs 0 to 7."""
    rng = np.random.default_rng(seed)
    data = folder / "KuaiRand-1K" / "data"
    for days in ("4_08_to_4_21", "4_22_to_5_08"):
        lines = [
            log_line(*(int(rng.integers(n)) for n in (9, 20, 2, 8)), time=1_650_000_000_000 + row)
            for row in range(rows)
        ]
        put(data / f"log_standard_{days}_1k.csv", [",".join(LOG), *lines])
    put(
        data / "user_features_1k.csv",
        [",".join(["user_id", *USER_FEATURES])]
        + [user_line(user, register_days=100 * user) for user in range(9)],
    )
    put(
        data / "video_features_basic_1k.csv",
        [",".join(["video_id", *VIDEO_FEATURES])]
        + [video_line(video, server_width="720.0" if video else "") for video in range(20)],
    )
    return folder


def fields(*pieces: tuple[str, int, float]) -> str:
    """A list of features as Ali-CCP writes it."""
    return "\x01".join(f"{field}\x02{feature}\x03{number}" for field, feature, number in pieces)


def ali_ccp_files(folder: Path, rows: int = 400, seed: int = 0) -> Path:
    """Two halves of so many rows, with 8 users each and the domains 77, 55 and 66."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        place = folder / f"sample_{part}"
        users = [
            fields(
                ("101", 1000 + user, 1.0),
                ("124", 20 + user % 2, 1.0),
                ("109_14", 300 + user, 0.5),
                ("109_14", 310 + user, float(user)),
            )
            for user in range(8)
        ]
        put(
            place / f"common_features_{part}.csv",
            [f"{part}{user},4,{listed}" for user, listed in enumerate(users)],
        )
        lines = []
        for row in range(rows):
            listed = fields(
                ("301", (77, 55, 66)[row % 3], 1.0),
                ("205", int(rng.integers(30)), 1.0),
                ("508", int(rng.integers(30)), round(float(rng.random()), 3)),
            )
            click = int(rng.integers(2))
            lines.append(f"{row},{click},0,{part}{int(rng.integers(8))},3,{listed}")
        put(place / f"sample_skeleton_{part}.csv", lines)
    return folder


def amazon_files(folder: Path, rows: int = 200, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in ("Beauty", "Clothing_Shoes_and_Jewelry", "Health_and_Personal_Care"):
        lines = [
            json.dumps(
                {
                    "reviewerID": f"A{int(rng.integers(9))}",
                    "asin": f"{name[:2]}{int(rng.integers(20))}",
                    "reviewerName": 'Jo "J" Doe',
                    "helpful": [0, 1],
                    "reviewText": "good\nvery",
                    "overall": float(rng.integers(1, 6)),
                    "summary": "s",
                    "unixReviewTime": 1_400_000_000 + row,
                    "reviewTime": "05 13, 2014",
                }
            )
            for row in range(rows)
        ]
        put(folder / f"reviews_{name}_5.json", lines)
    return folder


def douban_files(folder: Path, rows: int = 200, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    data = folder / "douban_dataset(text information)"
    users = [
        f'"上海"\t"2007-0{user + 1}-10"\t"says ""hi"", and\ttwo lines:\n2"\t"{user}"'
        for user in range(9)
    ]
    header = '"living_place"\t"join_time"\t"self_statement"\t"UID"'
    put(data / "users_cleaned.txt", [header, *users])
    for domain in ("book", "music", "movie"):
        lines = [
            "\t".join(
                f'"{value}"'
                for value in (
                    *(int(rng.integers(9)), int(rng.integers(20)), int(rng.integers(1, 6))),
                    *("a|b", "", "2010-01-02", row),
                )
            )
            for row in range(rows)
        ]
        names = ("user_id", f"{domain}_id", "rating", "labels", "comment", "time", "ID")
        header = "\t".join(f'"{name}"' for name in names)
        put(data / f"{domain}reviews_cleaned.txt", [header, *lines])
    return folder


CATEGORIES = ("news", "lifestyle", "sports", "finance", "weather")


def mind_files(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """Two parts of so many impressions of 1 to 5 news, among 25 news in 5 categories."""
    rng = np.random.default_rng(seed)
    for part in ("train", "dev"):
        place = folder / f"MINDlarge_{part}"
        put(
            place / "news.tsv",
            [
                f'N{news}\t{CATEGORIES[news % 5]}\tsub{news % 7}\t"A title\tan "abstract\tu\t[]\t[]'
                for news in range(25)
            ],
        )
        lines = []
        for row in range(rows):
            shown = rng.choice(25, int(rng.integers(1, 6)), replace=False)
            impressions = " ".join(f"N{news}-{int(rng.integers(2))}" for news in shown)
            history = "N1 N2" if row % 2 else ""
            time = f"11/{row % 28 + 1}/2019 {row % 12 + 1}:05:22 PM"
            lines.append(f"{row + 1}\tU{int(rng.integers(9))}\t{time}\t{history}\t{impressions}")
        put(place / "behaviors.tsv", lines)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "kuairand": kuairand_files,
    "ali-ccp": ali_ccp_files,
    "amazon": amazon_files,
    "douban": douban_files,
    "mind": mind_files,
}
