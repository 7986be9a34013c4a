"""The generated world: names and values that exist nowhere else, and every way to say a value that means the same.

In: a seeded `random.Random` and a split. Out: values with `reference` (how a reference says it), `same` (another way
to say it) and `other` (a different value, often a near miss). Knows no question, no sentence, no label.
Standard library only.
"""

import enum
import functools
import random
import zlib
from dataclasses import dataclass


class Split(enum.Enum):
    """Which half of the world an example comes from; no name of one half occurs in the other."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class Lang(enum.Enum):
    """The language of an example."""

    EN = "en"
    DE = "de"
    ZH = "zh"


def is_held_out(name: str) -> bool:
    """One name in eight, whatever its case."""
    return zlib.crc32(name.lower().encode()) % 8 == 0


@functools.cache
def words_of(words: tuple, split: Split) -> tuple:
    """The words of a split."""
    return tuple(word for word in words if is_held_out(word) == (split is Split.HELD_OUT))


@functools.cache
def halves(options: tuple) -> tuple:
    """The options for training, and those for the held-out split alone; all of them where one half is empty."""
    both = tuple(
        tuple(o.removeprefix("~") for o in options if o.startswith("~") == held_out) for held_out in (False, True)
    )
    return tuple(half or both[0] for half in both)


@dataclass(frozen=True)
class World:
    """A source of names: the random stream, the split it may draw from, the language it speaks."""

    rng: random.Random
    split: Split
    lang: Lang

    def holds(self, name: str) -> bool:
        """Whether a name belongs to this split."""
        return is_held_out(name) == (self.split is Split.HELD_OUT)

    def chance(self, probability: float) -> bool:
        """A biased coin."""
        return self.rng.random() < probability

    def pick(self, options):
        """One of the options. Those that begin with `~` occur in the held-out split alone, and there half of the time."""
        held_out = self.split is Split.HELD_OUT and self.chance(0.5)
        return self.rng.choice(halves(tuple(options))[held_out])

    def word(self, words):
        """One of the words of this split."""
        return self.rng.choice(words_of(tuple(words), self.split) or words)

    def name(self, tails=("",), pieces=(1, 2)) -> str:
        """A made-up proper name of this split."""
        while True:
            if self.lang is Lang.ZH:
                name = "".join(self.rng.choice(HANZI) for _ in range(2)) + self.rng.choice(tails)
            else:
                inner = "".join(self.rng.choice(NUCLEI) for _ in range(self.rng.randint(*pieces)))
                name = (self.rng.choice(ONSETS) + inner + self.rng.choice(tails)).capitalize()
            if self.holds(name):
                return name


ONSETS = """b br c ch cl d dr f fr g gr h j k kl kr l m n p pr qu r s sch sh sk sl st t th tr v w y z al an ar el en
er il in is ol or os ul un ur mc""".split()
NUCLEI = """a ai al an and ar as au e ea ed el en end er es et i ia ie il im in ing ir is it o oa ob ol on or os ou
u ul um un ur us ü ö ä é ya ba da ga ka la ma na ra sa ta va be de ge ke le me ne re se te ve bi di ki li mi ni ri si
ti vi bo do go ko lo mo no ro so to vo bu du ku lu mu nu ru tu""".split()
LAST_TAILS = "er ing mann son sen ski ova ton ley feld berg ardt well wick ez etti ic ou a o i y nd rt ss th".split()
FIRST_TAILS = "a o e i y us in an el ar is ert ine ette ah on or as".split()
PLACE_TAILS = "burg ton ville stad ford haven a ia o grad mouth dorf heim by field port ar en is um".split()
HANZI = "".join(
    """安白柏保北本宾波博才昌长朝晨成川春大丹德东恩尔方飞丰福刚高光贵国海汉河红宏华黄辉吉佳嘉建江杰金京静久军
凯康科克可兰乐立丽良林玲龙鲁路洛马曼茂梅美门蒙米民明木南宁诺欧平其奇千强清庆秋泉日荣瑞山善尚少胜石世守思斯松苏
素泰唐特天田庭通维伟文武西希夏贤祥翔晓新星雄秀雪雅亚延岩阳叶一义易银英永勇友有宇玉远月云泽展章哲真正志中忠竹子宗""".split()
)
SURNAMES = list("王李张刘陈杨黄赵周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕")

NOUNS = {
    Lang.EN: """copper iron granite oak leather silver bronze marble glass cotton amber basalt paper clay limestone wool
    violin piano trumpet cello flute harp guitar organ drum oboe wolf eagle salmon otter falcon tiger whale beaver heron
    badger red blue green yellow purple orange black white rose tulip lily iris maple birch pine cedar wheat rice barley
    maize helium oxygen nitrogen carbon sulphur zinc nickel chess rugby tennis rowing hockey fencing physics chemistry
    botany history music law Mars Venus Saturn Jupiter Monday Friday Sunday coffee tea sugar salt honey butter heart
    liver kidney lung brain retina French Latin Greek Arabic Hindi Turkish Finnish photosynthesis osmosis gravity
    erosion inflation malaria scurvy cholera quartz mica hammer chisel compass telescope microscope lighthouse""",
    Lang.DE: """Kupfer Eisen Granit Eiche Leder Silber Bronze Marmor Glas Wolle Bernstein Basalt Papier Ton Kalkstein
    Geige Klavier Trompete Flöte Harfe Orgel Wolf Adler Lachs Otter Falke Tiger Wal Biber Reiher Dachs Rot Blau Grün
    Gelb Schwarz Weiß Rose Tulpe Lilie Ahorn Birke Kiefer Weizen Reis Gerste Mais Helium Sauerstoff Stickstoff
    Kohlenstoff Zink Schach Tennis Rudern Physik Chemie Botanik Geschichte Musik Mars Venus Saturn Montag Freitag Kaffee
    Tee Zucker Salz Honig Herz Leber Niere Lunge Gehirn Latein Griechisch Türkisch Hammer Meißel Kompass Fernrohr""",
    Lang.ZH: """铜 铁 花岗岩 橡木 皮革 银 青铜 大理石 玻璃 棉花 琥珀 纸 石灰石 羊毛 小提琴 钢琴 小号 长笛 竖琴 吉他 狼 老鹰 鲑鱼
    水獭 老虎 鲸鱼 苍鹭 红色 蓝色 绿色 黄色 紫色 黑色 白色 玫瑰 郁金香 百合 枫树 松树 小麦 水稻 大麦 玉米 氦 氧气 氮气 碳 锌 象棋
    网球 划船 物理 化学 植物学 历史 音乐 火星 金星 土星 星期一 星期五 咖啡 茶 糖 盐 蜂蜜 心脏 肝脏 肾脏 肺 拉丁语 希腊语 锤子 指南针""",
}
NOUNS = {lang: words.split() for lang, words in NOUNS.items()}
TITLE_ADJECTIVES = """Silent Golden Last Hidden Broken Northern Crimson Endless Little Burning Empty Distant Green White
Forgotten Second Wandering Blue Frozen Old""".split()
TITLE_NOUNS = """Harbour Garden River Mirror Winter Lantern Bridge Forest Orchard Voyage Tower Letter Island Clock Meadow
Storm Portrait Shepherd Window Road Symphony Castle""".split()


@dataclass(frozen=True)
class Person:
    """Somebody with a first and a last name."""

    first: str
    last: str

    @staticmethod
    def draw(world: World) -> "Person":
        if world.lang is Lang.ZH:
            return Person(world.name(), world.rng.choice(SURNAMES))
        return Person(world.name(FIRST_TAILS), world.name(LAST_TAILS))

    def reference(self, world: World) -> str:
        return self.last + self.first if world.lang is Lang.ZH else f"{self.first} {self.last}"

    def same(self, world: World) -> str:
        full = self.reference(world)
        if world.lang is Lang.ZH:
            return world.rng.choice([full, full, full + "先生", full + "教授"])
        titles = ["Dr", "Dr.", "Professor", "Sir"] if world.lang is Lang.EN else ["Dr.", "Prof.", "Herr", "Frau"]
        titled = f"{world.rng.choice(titles)} {full}"
        return world.rng.choice([full, full, full, self.last, f"{self.last}, {self.first}", titled])

    def other(self, world: World) -> "Person":
        stranger = Person.draw(world)
        kept = world.rng.choice(["none", "none", "first", "last"])
        if kept == "first" and stranger.last != self.last:
            return Person(self.first, stranger.last)
        # A bare last name is right for the reference, so a namesake must be told by the first name.
        if kept == "last" and stranger.first != self.first:
            return Named(Person(stranger.first, self.last).reference(world))
        return stranger


@dataclass(frozen=True)
class Named:
    """A place, a work, a firm, a thing: one name, with or without quotes and article."""

    name: str

    @staticmethod
    def place(world: World) -> "Named":
        return Named(world.name(("市", "州", "岛", "镇") if world.lang is Lang.ZH else PLACE_TAILS))

    @staticmethod
    def work(world: World) -> "Named":
        if world.lang is not Lang.EN or world.chance(0.3):
            return Named(world.name(("之歌", "的夜", "记") if world.lang is Lang.ZH else PLACE_TAILS))
        tail = f" of {world.name(PLACE_TAILS)}" if world.chance(0.4) else ""
        return Named(f"The {world.word(TITLE_ADJECTIVES)} {world.rng.choice(TITLE_NOUNS)}{tail}")

    @staticmethod
    def thing(world: World) -> "Named":
        words = NOUNS[world.lang]
        if world.lang is Lang.EN and world.chance(0.25):
            return Named(f"{world.rng.choice(TITLE_ADJECTIVES).lower()} {world.word(words)}")
        return Named(world.word(words))

    def reference(self, world: World) -> str:
        return self.name

    def same(self, world: World) -> str:
        forms = [self.name] * 4 + [f'"{self.name}"' if world.lang is not Lang.ZH else f"“{self.name}”"]
        if world.lang is Lang.EN:
            forms.append(self.name.removeprefix("The ") if self.name.startswith("The ") else f"the {self.name}")
        return world.rng.choice(forms)

    def other(self, world: World) -> "Named":
        words = self.name.split()
        while True:
            if words[0] == "The" and len(words) > 2 and world.chance(0.5):
                other = " ".join([*words[:2], world.rng.choice(TITLE_NOUNS), *words[3:]])
            elif len(words) == 2 and words[1] in NOUNS[world.lang] and world.chance(0.5):
                other = f"{words[0]} {world.rng.choice(NOUNS[world.lang])}"
            elif self.name in NOUNS[world.lang]:
                other = world.rng.choice(NOUNS[world.lang])
            elif world.lang is not Lang.ZH and len(self.name) > 6 and world.chance(0.25):
                other = self.name[: len(self.name) // 2] + world.name(PLACE_TAILS, (1, 1)).lower()
            else:
                other = world.rng.choice([Named.place, Named.work])(world).name
            if other.lower() != self.name.lower():
                return Named(other)
