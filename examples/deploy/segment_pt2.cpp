// Paint what a segmentor that compile_pt2.py compiled says of a photo of its size,
// with libtorch alone. docs/export.md has the command that compiles it.
//
//     ./segment model.pt2 photo.ppm labels.ppm

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <ATen/ATen.h>

#include "picture.h"

static void run(const char* model, const char* photo, const char* out) {
  torch::inductor::AOTIModelPackageLoader loader(model);
  const Picture picture = read_picture(photo);
  auto facts = loader.get_metadata();
  const std::string size = "[" + std::to_string(picture.height) + ", " + std::to_string(picture.width) + "]";
  if (facts["eyetoy.size"] != size)  // a compiled program does not look
    throw std::runtime_error(std::string(photo) + " is of " + size + ", height and width; " + model + " takes " +
                             facts["eyetoy.size"]);
  std::vector<float> x = planes(picture);
  const c10::InferenceMode no_gradients;
  const at::Tensor images = at::from_blob(x.data(), {1, 3, picture.height, picture.width});
  const at::Tensor labels = loader.run({images})[0].contiguous();
  const std::vector<uint8_t> palette = numbers(facts["eyetoy.palette"]);
  write_picture(out, painted(labels.data_ptr<int64_t>(), labels.size(1), labels.size(2), palette));
}

int main(int count, char** arguments) { return program(count, arguments, "pt2", run); }
