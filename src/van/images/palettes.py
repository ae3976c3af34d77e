"""Names and colours of the public segmentation data sets: pure data.

Source: the data sets' own tables (ADE20K scene parsing, 150 classes; Cityscapes labels; PASCAL VOC development kit;
COCO-Stuff labels). Colours serve pictures; VOC's also read its masks when they were saved as RGB.
"""

from __future__ import annotations

from .label_maps import CITYSCAPES_LABEL_IDS, default_palette

Color = tuple[int, int, int]


def _names(table: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in table.split(";"))


def _rows(table: str) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Names and colours of `rrggbb name; rrggbb name; …`."""
    rows = [row.split(maxsplit=1) for row in table.split(";")]
    colors = [bytes.fromhex(code) for code, _ in rows]
    return tuple(name.strip() for _, name in rows), tuple((c[0], c[1], c[2]) for c in colors)


ADE20K_CLASSES, ADE20K_PALETTE = _rows("""
787878 wall; b47878 building; 06e6e6 sky; 503232 floor; 04c803 tree; 787850 ceiling; 8c8c8c road; cc05ff bed;
e6e6e6 windowpane; 04fa07 grass; e005ff cabinet; ebff07 sidewalk; 96053d person; 787846 earth; 08ff33 door;
ff0652 table; 8fff8c mountain; ccff04 plant; ff3307 curtain; cc4603 chair; 0066c8 car; 3de6fa water;
ff0633 painting; 0b66ff sofa; ff0747 shelf; ff09e0 house; 0907e6 sea; dcdcdc mirror; ff095c rug; 7009ff field;
08ffd6 armchair; 07ffe0 seat; ffb806 fence; 0aff47 desk; ff290a rock; 07ffff wardrobe; e0ff08 lamp;
6608ff bathtub; ff3d06 railing; ffc207 cushion; ff7a08 base; 00ff14 box; ff0829 column; ff0599 signboard;
0633ff chest of drawers; eb0cff counter; a09614 sand; 00a3ff sink; 8c8c8c skyscraper; fa0a0f fireplace;
14ff00 refrigerator; 1fff00 grandstand; ff1f00 path; ffe000 stairs; 99ff00 runway; 0000ff case;
ff4700 pool table; 00ebff pillow; 00adff screen door; 1f00ff stairway; 0bc8c8 river; ff5200 bridge;
00fff5 bookcase; 003dff blind; 00ff70 coffee table; 00ff85 toilet; ff0000 flower; ffa300 book; ff6600 hill;
c2ff00 bench; 008fff countertop; 33ff00 stove; 0052ff palm; 00ff29 kitchen island; 00ffad computer;
0a00ff swivel chair; adff00 boat; 00ff99 bar; ff5c00 arcade machine; ff00ff hovel; ff00f5 bus; ff0066 towel;
ffad00 light; ff0014 truck; ffb8b8 tower; 001fff chandelier; 00ff3d awning; 0047ff streetlight; ff00cc booth;
00ffc2 television receiver; 00ff52 airplane; 000aff dirt track; 0070ff apparel; 3300ff pole; 00c2ff land;
007aff bannister; 00ffa3 escalator; ff9900 ottoman; 00ff0a bottle; ff7000 buffet; 8fff00 poster; 5200ff stage;
a3ff00 van; ffeb00 ship; 08b8aa fountain; 8500ff conveyer belt; 00ff5c canopy; b800ff washer; ff001f plaything;
00b8ff swimming pool; 00d6ff stool; ff0070 barrel; 5cff00 basket; 00e0ff waterfall; 70e0ff tent; 46b8a0 bag;
a300ff minibike; 9900ff cradle; 47ff00 oven; ff00a3 ball; ffcc00 food; ff008f step; 00ffeb tank;
85ff00 trade name; ff00eb microwave; f500ff pot; ff007a animal; fff500 bicycle; 0abed4 lake; d6ff00 dishwasher;
00ccff screen; 1400ff blanket; ffff00 sculpture; 0099ff hood; 0029ff sconce; 00ffcc vase; 2900ff traffic light;
29ff00 tray; ad00ff ashcan; 00f5ff fan; 4700ff pier; 7a00ff crt screen; 00ffb8 plate; 005cff monitor;
b8ff00 bulletin board; 0085ff shower; ffd600 radiator; 19c2c2 glass; 66ff00 clock; 5c00ff flag
""")

CITYSCAPES_CLASSES, CITYSCAPES_PALETTE = _rows("""
804080 road; f423e8 sidewalk; 464646 building; 66669c wall; be9999 fence; 999999 pole; faaa1e traffic light;
dcdc00 traffic sign; 6b8e23 vegetation; 98fb98 terrain; 4682b4 sky; dc143c person; ff0000 rider; 00008e car;
000046 truck; 003c64 bus; 005064 train; 0000e6 motorcycle; 770b20 bicycle
""")

# Label id -> train id; every other id up to 33 is left out of training and evaluation.
CITYSCAPES_TRAIN_IDS: dict[int, int] = {id_: train_id for train_id, id_ in enumerate(CITYSCAPES_LABEL_IDS)}
CITYSCAPES_VOID_IDS: tuple[int, ...] = tuple(id_ for id_ in range(34) if id_ not in CITYSCAPES_TRAIN_IDS)

VOC_CLASSES = _names("""
background; aeroplane; bicycle; bird; boat; bottle; bus; car; cat; chair; cow; diningtable; dog; horse; motorbike;
person; pottedplant; sheep; sofa; train; tvmonitor
""")
VOC_PALETTE = default_palette(21)
# Colour 255 of the same rule: the border around objects.
VOC_BORDER: Color = (224, 224, 192)

COCO_STUFF_CLASSES = _names("""
person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light; fire hydrant; stop sign;
parking meter; bench; bird; cat; dog; horse; sheep; cow; elephant; bear; zebra; giraffe; backpack; umbrella;
handbag; tie; suitcase; frisbee; skis; snowboard; sports ball; kite; baseball bat; baseball glove; skateboard;
surfboard; tennis racket; bottle; wine glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange;
broccoli; carrot; hot dog; pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv;
laptop; mouse; remote; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; book; clock; vase;
scissors; teddy bear; hair drier; toothbrush; banner; blanket; branch; bridge; building-other; bush; cabinet;
cage; cardboard; carpet; ceiling-other; ceiling-tile; cloth; clothes; clouds; counter; cupboard; curtain;
desk-stuff; dirt; door-stuff; fence; floor-marble; floor-other; floor-stone; floor-tile; floor-wood; flower;
fog; food-other; fruit; furniture-other; grass; gravel; ground-other; hill; house; leaves; light; mat; metal;
mirror-stuff; moss; mountain; mud; napkin; net; paper; pavement; pillow; plant-other; plastic; platform;
playingfield; railing; railroad; river; road; rock; roof; rug; salad; sand; sea; shelf; sky-other; skyscraper;
snow; solid-other; stairs; stone; straw; structural-other; table; tent; textile-other; towel; tree; vegetable;
wall-brick; wall-concrete; wall-other; wall-panel; wall-stone; wall-tile; wall-wood; water-other; waterdrops;
window-blind; window-other; wood
""")
COCO_STUFF_PALETTE = default_palette(len(COCO_STUFF_CLASSES) + 1)[1:]
# The published masks hold category id - 1 (0 … 181); eleven categories have no annotation, the others close up.
_COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_STUFF_TRAIN_IDS: dict[int, int] = {
    value: train_id for train_id, value in enumerate(value for value in range(182) if value not in _COCO_STUFF_UNUSED)
}
