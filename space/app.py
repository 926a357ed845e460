"The page of otseg with the shipped model, as a Space of Hugging Face"
from otseg.explore.page import example_pictures, make_page, page_look
from otseg.predict.segmenter import Segmenter

segmenter = Segmenter.from_pretrained('toy')
make_page(segmenter, example_pictures(segmenter)).launch(**page_look())
