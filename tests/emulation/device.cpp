// A CUDA device that is the host: torch's operations on its tensors run as the CPU's on the same memory. What a GPU
// insists on holds: all tensors of an operation are on one device, and a recorded graph runs again on the memory that
// it was recorded with, and on nothing else.
//
// It must be loaded before a torch without CUDA, which then finds this getAccelerator instead of its own.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <unordered_set>

namespace at::accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) { return c10::DeviceType::CUDA; }
}  // namespace at::accelerator

namespace {

const c10::Device DEVICE(c10::DeviceType::CUDA, 0);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return DEVICE.type(); }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// torch looks the class up by this name.
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(at::kCPU); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

}  // namespace

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace {

using Values = std::vector<c10::IValue>;
using Names = std::unordered_set<std::string>;

// Operations whose arguments may be on the host and on the device at once.
const Names MIXING = {"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::set_"};
// Operations that may be given indices on the host.
const Names INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};

bool is_on_device(const at::Tensor& tensor) { return tensor.defined() && tensor.is_cuda(); }

// The tensor as one of the host, of the same memory.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!is_on_device(tensor)) return tensor;
  const size_t bytes = tensor.storage().nbytes();
  c10::DataPtr pointer(const_cast<void*>(tensor.storage().data()), c10::Device(at::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t{}, bytes, std::move(pointer), c10::GetAllocator(at::kCPU), true);
  at::Tensor made = at::empty({0}, tensor.options().device(at::kCPU));
  made.set_(storage, tensor.storage_offset(), tensor.sizes(), tensor.strides());
  if (tensor.is_conj()) made._set_conj(true);
  if (tensor.is_neg()) made._set_neg(true);
  return made;
}

// A tensor of the device that owns the host tensor's memory.
at::Tensor on_device(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided) return tensor;
  auto* owner = new c10::Storage(tensor.storage());
  c10::DataPtr pointer(
      owner->mutable_data(), owner, [](void* held) { delete static_cast<c10::Storage*>(held); }, DEVICE);
  c10::Storage storage(c10::Storage::use_byte_size_t{}, owner->nbytes(), std::move(pointer), nullptr, false);
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                                       tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return made;
}

// A view of a tensor of the device as the host made it.
at::Tensor as_view(const at::Tensor& base, const at::Tensor& view) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()),
                                                       base.key_set(), view.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
  return made;
}

// Every tensor in a value exchanged for what `change` makes of it.
template <typename Change>
c10::IValue map(const c10::IValue& value, const Change& change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& one : value.toTensorVector()) list.push_back(change(one));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& one : value.toOptionalTensorVector())
      list.push_back(one ? std::optional(change(*one)) : std::nullopt);
    return list;
  }
  return value;
}

// An operation that ran while a graph was recorded, with its arguments and results on the host.
struct Call {
  c10::OperatorHandle operation;
  Values arguments, results;
};
std::vector<std::vector<Call>> graphs;
bool recording = false;

void call(const c10::OperatorHandle& operation, const Values& arguments, Values& results) {
  results = arguments;
  operation.callBoxed(&results);
  if (recording) graphs.back().push_back({operation, arguments, results});
}

bool is_alias(const c10::AliasInfo* one, const c10::AliasInfo* other) {
  if (one == nullptr || other == nullptr) return false;
  for (const auto& set : one->beforeSets()) {
    if (other->beforeSets().count(set) > 0) return true;
  }
  return false;
}

void run_on_host(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  const std::string& name = schema.name();
  const size_t number = schema.arguments().size();
  const Values given(stack->end() - number, stack->end());
  stack->erase(stack->end() - number, stack->end());

  // Which devices the tensors are on, and which one an argument such as `device=` names.
  bool device_given = false, device_named = false, host_named = false;
  std::optional<int64_t> host_dimensions;
  Values arguments;
  for (const auto& value : given) {
    if (value.isDevice()) {
      (value.toDevice().is_cuda() ? device_named : host_named) = true;
      arguments.emplace_back(c10::Device(at::kCPU));
      continue;
    }
    const bool indices = value.isOptionalTensorList() && INDEXING.count(name) > 0;
    arguments.push_back(map(value, [&](const at::Tensor& tensor) {
      device_given |= is_on_device(tensor);
      if (tensor.defined() && tensor.device().is_cpu() && tensor.dim() > 0 && !indices) host_dimensions = tensor.dim();
      return on_host(tensor);
    }));
  }
  TORCH_CHECK(!device_given || !host_dimensions || MIXING.count(name) > 0,
              "Expected all tensors to be on the same device, but found ", DEVICE, " and cpu (", *host_dimensions,
              " dimensions) in ", name);
  const bool new_on_device = device_named || (device_given && !host_named);

  Values results;
  call(operation, arguments, results);
  for (size_t place = 0; place < results.size(); ++place) {
    const c10::AliasInfo* alias = schema.returns()[place].alias_info();
    if (alias != nullptr && !alias->containedTypes().empty()) alias = &alias->containedTypes()[0];
    stack->push_back(map(results[place], [&](const at::Tensor& result) {
      for (size_t at = 0; at < number; ++at) {
        if (!given[at].isTensor() || !is_alias(alias, schema.arguments()[at].alias_info())) continue;
        const at::Tensor& base = given[at].toTensor();
        if (!is_on_device(base)) continue;
        if (alias->isWrite()) {
          if (base.sizes() != result.sizes() || base.strides() != result.strides()) {
            base.unsafeGetTensorImpl()->set_storage_keep_dtype(c10::Storage(on_device(result).storage()));
            base.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(),
                                                              result.storage_offset());
          }
          return base;
        }
        if (base.storage().data() == result.storage().data()) return as_view(base, result);
      }
      return new_on_device ? on_device(result) : result;
    }));
  }
}

at::Tensor& set_storage_at(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef size,
                           at::IntArrayRef stride) {
  TORCH_CHECK(storage.device() == self.device(), "set_: a storage of ", storage.device(), " for a tensor of ",
              self.device());
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(storage);
  if (stride.size() == size.size()) {
    self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  } else {
    self.unsafeGetTensorImpl()->set_storage_offset(offset);
    self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  }
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage) {
  return set_storage_at(self, storage, 0, {static_cast<int64_t>(storage.nbytes() / self.element_size())}, {1});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage_at(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  // torch's own copy_ is for all devices and calls a kernel by the device, of which there is none for this one.
  library.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  library.impl("set_.source_Storage", set_storage);
  library.impl("set_.source_Storage_storage_offset", set_storage_at);
  library.impl("set_.source_Tensor", set_tensor);
}

}  // namespace

extern "C" {

void emulated_graph_begin() {
  graphs.emplace_back();
  recording = true;
}

int64_t emulated_graph_end() {
  recording = false;
  return static_cast<int64_t>(graphs.size()) - 1;
}

// Runs what was recorded again: on the same memory, into the same memory.
void emulated_graph_replay(int64_t graph) {
  for (Call& made : graphs[graph]) {
    Values results = made.arguments;
    made.operation.callBoxed(&results);
    for (size_t place = 0; place < results.size(); ++place) {
      std::vector<at::Tensor> kept;
      map(made.results[place], [&](const at::Tensor& tensor) { return kept.emplace_back(tensor); });
      auto each = kept.begin();
      map(results[place], [&](const at::Tensor& tensor) {
        const at::Tensor& before = *each++;
        if (tensor.defined() && before.data_ptr() != tensor.data_ptr()) before.copy_(tensor);
        return tensor;
      });
    }
  }
}
}
