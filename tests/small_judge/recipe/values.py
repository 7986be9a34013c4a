"""Values with digits, and values made of several: numbers, years, quantities, dates, lists, pairs.

In: a `World`. Out: values with `reference`, `same` and `other`, as in `world.py`. Knows no question and no sentence.
Standard library only.
"""

from dataclasses import dataclass

from world import Lang, Named, Person, World

ONES = {
    Lang.EN: """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty""".split(),
    Lang.DE: """null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn
    siebzehn achtzehn neunzehn zwanzig""".split(),
    Lang.ZH: "零 一 二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六 十七 十八 十九 二十".split(),
}
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = {
    Lang.EN: """January February March April May June July August September October November December""".split(),
    Lang.DE: """Januar Februar März April Mai Juni Juli August September Oktober November Dezember""".split(),
}
# Per dimension: the unit's names in each language, and how many of the smallest unit it holds.
UNITS = [
    [("km", "kilometres|kilometers", "Kilometer", "公里", 1000), ("m", "metres|meters", "Meter", "米", 1)],
    [("kg", "kilograms|kilogrammes", "Kilogramm", "公斤", 1000), ("g", "grams|grammes", "Gramm", "克", 1)],
    [("m", "metres|meters", "Meter", "米", 100), ("cm", "centimetres|centimeters", "Zentimeter", "厘米", 1)],
    [("l", "litres|liters", "Liter", "升", 1000), ("ml", "millilitres|milliliters", "Milliliter", "毫升", 1)],
    [("%", "percent|per cent", "Prozent", "%", 1), ("‰", "per mille", "Promille", "‰", 0)],
    [
        ("°C", "degrees Celsius", "Grad Celsius", "摄氏度", 1),
        ("°F", "degrees Fahrenheit", "Grad Fahrenheit", "华氏度", 0),
    ],
    [("€", "euros", "Euro", "欧元", 1), ("$", "dollars|US dollars", "Dollar", "美元", 0)],
    [("mi", "miles", "Meilen", "英里", 1), ("km", "kilometres|kilometers", "Kilometer", "公里", 0)],
    [("h", "hours", "Stunden", "小时", 60), ("min", "minutes", "Minuten", "分钟", 1)],
]


def other_digits(world: World, digits: str) -> str:
    """The same digits with one changed, two swapped, one left out or one put in; never the same number."""
    while True:
        at = world.rng.randrange(len(digits))
        change = world.rng.choice(["digit", "digit", "swap", "drop", "zero", "near"])
        if change == "digit":
            other = digits[:at] + str(world.rng.randrange(10)) + digits[at + 1 :]
        elif change == "swap" and at:
            other = digits[: at - 1] + digits[at] + digits[at - 1] + digits[at + 1 :]
        elif change == "drop" and len(digits) > 1:
            other = digits[:at] + digits[at + 1 :]
        elif change == "zero":
            other = digits + "0"
        else:
            other = str(max(0, int(digits) + world.rng.choice([-10, -2, -1, 1, 2, 10])))
        if int(other) != int(digits) and (other == "0" or not other.startswith("0")):
            return other


def spelled(world: World, number: int) -> str:
    """A number as people write it: digits, grouped digits, a word where it is small."""
    forms = [str(number)]
    if number <= 20:
        forms += [ONES[world.lang][number]] * 2
    elif number < 100 and world.lang is Lang.EN:
        forms.append(f"{TENS[number // 10 - 2]}-{ONES[Lang.EN][number % 10]}".removesuffix("-zero"))
    elif number % 1_000_000 == 0:
        forms.append(
            {Lang.EN: "{} million", Lang.DE: "{} Millionen", Lang.ZH: "{}00万"}[world.lang].format(number // 1_000_000)
        )
    if number >= 1000:
        comma = f"{number:,}"
        forms.append(comma.replace(",", ".") if world.lang is Lang.DE else comma)
        forms.append(comma.replace(",", " "))
    return world.rng.choice(forms)


@dataclass(frozen=True)
class Number:
    """A whole number, or one with decimals."""

    digits: str
    decimals: str = ""

    @staticmethod
    def draw(world: World) -> "Number":
        top = world.rng.choice([20, 20, 100, 1000, 100_000, 10_000_000])
        if world.chance(0.05):
            return Number(str(world.rng.randint(2, 99) * 1_000_000))
        decimals = str(world.rng.randint(1, 99)) if world.chance(0.12) else ""
        return Number(str(world.rng.randint(0 if decimals else 1, top)), decimals.rstrip("0"))

    def reference(self, world: World) -> str:
        return self.same(world)

    def same(self, world: World) -> str:
        if self.decimals:
            return self.digits + ("," if world.lang is Lang.DE else ".") + self.decimals
        return spelled(world, int(self.digits))

    def other(self, world: World) -> "Number":
        if self.decimals and world.chance(0.5):
            # One digit more cannot be a trailing zero, which would change nothing.
            return Number(self.digits, self.decimals + str(world.rng.randint(1, 9)))
        return Number(other_digits(world, self.digits), self.decimals)


@dataclass(frozen=True)
class Year:
    """A year of the common era."""

    year: int

    @staticmethod
    def draw(world: World) -> "Year":
        return Year(world.rng.choice([world.rng.randint(1000, 2030), world.rng.randint(1700, 2030)]))

    def reference(self, world: World) -> str:
        return str(self.year) + ("年" if world.lang is Lang.ZH and world.chance(0.5) else "")

    def same(self, world: World) -> str:
        year = str(self.year)
        forms = {
            Lang.EN: [
                year,
                year,
                f"in {year}",
                f"the year {year}",
                f"{year} AD",
                f"{world.rng.choice(MONTHS[Lang.EN])} {year}",
            ],
            Lang.DE: [year, year, f"im Jahr {year}", f"im Jahre {year}", f"{year} n. Chr."],
            Lang.ZH: [year, f"{year}年", f"公元{year}年", f"{year} 年"],
        }[world.lang]
        return world.rng.choice(forms)

    def other(self, world: World) -> "Year":
        if world.chance(0.2):
            decade = self.year // 10 * 10
            return Named(
                {Lang.EN: f"the {decade}s", Lang.DE: f"{decade}er Jahre", Lang.ZH: f"{decade}年代"}[world.lang]
            )
        return self.near(world)

    def near(self, world: World) -> "Year":
        """Another year of four digits that looks like this one."""
        while True:
            digits = other_digits(world, str(self.year))
            if len(digits) == 4:
                return Year(int(digits))


@dataclass(frozen=True)
class Quantity:
    """A number and a unit: `dimension` and `unit` index `UNITS`."""

    number: int
    dimension: int
    unit: int

    @staticmethod
    def draw(world: World) -> "Quantity":
        dimension = world.rng.randrange(len(UNITS))
        return Quantity(
            world.rng.randint(1, world.rng.choice([9, 20, 100, 900])), dimension, world.rng.choice([0, 0, 1])
        )

    def reference(self, world: World) -> str:
        return self.said(world, self.number, UNITS[self.dimension][self.unit])

    def same(self, world: World) -> str:
        factor = UNITS[self.dimension][0][4]
        # Conversions with a power of ten only: a fixture this small reads digits, it does not multiply.
        if factor in (100, 1000) and self.unit == 0 and self.number <= 100 and world.chance(0.25):
            return self.said(world, self.number * factor, UNITS[self.dimension][1])
        return self.reference(world)

    def other(self, world: World) -> "Quantity":
        if world.chance(0.35):
            return Quantity(self.number, self.dimension, 1 - self.unit)
        return Quantity(int(other_digits(world, str(self.number))), self.dimension, self.unit)

    @staticmethod
    def said(world: World, number: int, unit) -> str:
        names = {Lang.EN: unit[1], Lang.DE: unit[2], Lang.ZH: unit[3]}[world.lang].split("|")
        if world.chance(0.45):
            if unit[0] == "$":
                return f"${number}"
            return f"{number}{world.rng.choice([' ', ''])}{unit[0]}"
        gap = "" if world.lang is Lang.ZH else " "
        return f"{spelled(world, number)}{gap}{world.rng.choice(names)}"


@dataclass(frozen=True)
class Date:
    """A day of the Gregorian calendar."""

    year: int
    month: int
    day: int

    @staticmethod
    def draw(world: World) -> "Date":
        return Date(world.rng.randint(1500, 2029), world.rng.randint(1, 12), world.rng.randint(1, 28))

    def reference(self, world: World) -> str:
        return self.same(world)

    def same(self, world: World) -> str:
        year, month, day = self.year, self.month, self.day
        iso = f"{year}-{month:02}-{day:02}"
        if world.lang is Lang.ZH:
            return world.rng.choice([f"{year}年{month}月{day}日", f"{year} 年 {month} 月 {day} 日", iso])
        name = MONTHS[world.lang][month - 1]
        if world.lang is Lang.DE:
            forms = [
                f"{day}. {name} {year}",
                f"am {day}. {name} {year}",
                f"{day}.{month}.{year}",
                f"{day:02}.{month:02}.{year}",
                iso,
            ]
            return world.rng.choice(forms)
        tail = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
        long = [
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{name} {day}{tail}, {year}",
            f"the {day}{tail} of {name} {year}",
        ]
        return world.rng.choice([*long, *long, iso, f"{day} {name[:3]} {year}", f"{name[:3]} {day}, {year}"])

    def other(self, world: World) -> "Date":
        part = world.rng.choice(["day", "month", "year", "only"])
        if part == "day":
            return Date(self.year, self.month, self.day % 28 + 1 if world.chance(0.5) else (self.day + 9) % 28 + 1)
        if part == "month":
            return Date(self.year, (self.month + world.rng.randint(0, 10)) % 12 + 1, self.day)
        if part == "only":
            # Less than was asked for: a year, or a month of a year, is no day.
            if world.lang is Lang.ZH:
                return Named(world.rng.choice([f"{self.year}年", f"{self.year}年{self.month}月"]))
            return Named(world.rng.choice([str(self.year), f"{MONTHS[world.lang][self.month - 1]} {self.year}"]))
        return Date(Year(self.year).near(world).year, self.month, self.day)


JOINS = {
    Lang.EN: [(", ", " and "), (", ", ", and "), (", ", ", "), ("; ", "; "), ("\n- ", "\n- "), (" and ", " and ")],
    Lang.DE: [(", ", " und "), (", ", ", "), (" und ", " und "), ("; ", "; ")],
    Lang.ZH: [("、", "和"), ("、", "、"), ("，", "，"), ("、", "以及")],
}


@dataclass(frozen=True)
class Listing:
    """Two to four different things in no order."""

    items: tuple

    @staticmethod
    def draw(world: World) -> "Listing":
        draw = world.rng.choice([Named.place, Named.thing, Named.thing, Person.draw])
        wanted, items = world.rng.choice([2, 3, 3, 4]), {}
        while len(items) < wanted:
            item = draw(world).reference(world)
            items[item.lower()] = item
        return Listing(tuple(items.values()))

    def reference(self, world: World) -> str:
        return self.joined(world, list(self.items))

    def same(self, world: World) -> str:
        items = list(self.items)
        world.rng.shuffle(items)
        return self.joined(world, items)

    def other(self, world: World) -> "Listing":
        items = list(self.items)
        world.rng.shuffle(items)
        stranger = Named(items[-1]).other(world).name
        while stranger.lower() in {item.lower() for item in items}:
            stranger = Named.place(world).name
        change = world.rng.choice(["replace", "replace", "drop", "add"])
        if change == "replace":
            items[-1] = stranger
        elif change == "drop":
            items.pop()
        else:
            items.append(stranger)
        world.rng.shuffle(items)
        return Listing(tuple(items))

    @staticmethod
    def joined(world: World, items: list) -> str:
        comma, last = world.rng.choice(JOINS[world.lang])
        if len(items) == 1:
            return items[0]
        return comma.join(items[:-1]) + last + items[-1]


@dataclass(frozen=True)
class Pair:
    """Who and when: both are asked for."""

    person: Person | Named
    year: Year | None

    @staticmethod
    def draw(world: World) -> "Pair":
        return Pair(Person.draw(world), Year.draw(world))

    def reference(self, world: World) -> str:
        person = self.person.reference(world)
        if self.year is None:
            return person
        forms = {
            Lang.EN: ["{p}, {y}", "{p} in {y}", "{p} ({y})", "in {y} by {p}", "{y}, {p}"],
            Lang.DE: ["{p}, {y}", "{p} im Jahr {y}", "{p} ({y})", "im Jahr {y} von {p}"],
            Lang.ZH: ["{p}，{y}年", "{y}年，{p}", "{p}（{y}年）"],
        }[world.lang]
        return world.rng.choice(forms).format(p=person, y=self.year.year)

    def same(self, world: World) -> str:
        return self.reference(world)

    def other(self, world: World) -> "Pair":
        change = world.rng.choice(["person", "year", "both", "missing"])
        if change == "missing":
            return Pair(self.person, None)
        person = self.person if change == "year" else self.person.other(world)
        return Pair(person, self.year if change == "person" else self.year.near(world))
